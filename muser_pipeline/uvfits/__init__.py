"""UVFITS files: what the field's imaging programs read."""

from muser_pipeline.uvfits.files import name_of, split, write_files
from muser_pipeline.uvfits.writer import UvfitsWriter, WrittenFile

__all__ = ["UvfitsWriter", "WrittenFile", "name_of", "split", "write_files"]
