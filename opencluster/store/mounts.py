"""Which file system a path is on, and whether other computers share it.

Owns the names of file systems. Must not decide what may lie where.
"""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
_SHARED = re.compile(
    r"nfs\d*|cifs|smb\w*|lustre|gpfs|beegfs|ceph|fuse\.(sshfs|ceph\w*|glusterfs)"
    r"|glusterfs|afs|9p|ocfs2|gfs2|pvfs2|orangefs"
)
_ESCAPED = re.compile(r"\\([0-7]{3})")


def shared_file_system(path: Path) -> str:
    """Return the kind of file system that a path is on, if computers share it.

    Parameters
    ----------
    path : Path
        A file or folder, which need not be there.

    Returns
    -------
    str
        Such as ``nfs4``; empty for a local disk, and where this cannot be known.
    """
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    above = [path.resolve(), *path.resolve().parents]
    found = (len(above), "")
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        plain = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), point)
        # the nearest one, and of several on one folder the last, which covers others
        if Path(plain) in above and above.index(Path(plain)) <= found[0]:
            found = above.index(Path(plain)), kind
    return found[1] if _SHARED.fullmatch(found[1]) else ""
