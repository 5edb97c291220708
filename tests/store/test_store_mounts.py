from __future__ import annotations

from pathlib import Path

import pytest

from opencluster.store import mounts
from opencluster.store.mounts import shared_file_system

TABLE = """\
overlay / overlay rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/local ext4 rw 0 0
mds:/x /data\\040of\\040all lustre rw 0 0
tmpfs /covered tmpfs rw 0 0
me@there: /covered fuse.sshfs rw 0 0
/dev/sdc1 /homely ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", ""),
        ("/home", "nfs4"),
        ("/home/me/state/tasks.db", "nfs4"),
        ("/home/me/local/tasks.db", ""),
        ("/homely/tasks.db", ""),
        ("/data of all/tasks.db", "lustre"),
        ("/covered/tasks.db", "fuse.sshfs"),
    ],
)
def test_the_nearest_mount_counts(
    path: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(TABLE)
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    assert shared_file_system(Path(path)) == kind


def test_the_mounts_of_this_computer_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shared_file_system(Path("/proc/self")) == ""
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "missing")
    assert shared_file_system(tmp_path) == ""
