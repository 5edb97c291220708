"""An archive of raw files, by time: which frames there are, and which are missing."""

from muser_pipeline.archive.index import Archive, ArchiveFile, index_archive
from muser_pipeline.archive.loops import Loops, find_loops
from muser_pipeline.archive.selection import Gap, Selection, SkippedOf

__all__ = [
    "Archive",
    "ArchiveFile",
    "Gap",
    "Loops",
    "Selection",
    "SkippedOf",
    "find_loops",
    "index_archive",
]
