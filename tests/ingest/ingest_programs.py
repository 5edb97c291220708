"""Servers in processes of their own, to be killed, or on a disk that becomes full."""

from __future__ import annotations

import os
import sys
import threading
import zlib
from pathlib import Path

from ingest_tools import Notebook, Sender, packed, serving, wait_until

from opencluster import Manager, WorkPiece
from opencluster.config import Config
from opencluster.config.settings import IngestSettings
from opencluster.ingest import IngestServer, ItemFraming, Verdict


class Logging(Manager):
    """Notes each item in a file."""

    path = Path()

    def schedule(self, task: WorkPiece) -> WorkPiece:
        line = f"{task['item']} {len(task['data'])} {zlib.crc32(task['data'])}\n"
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, line.encode())
        os.close(fd)
        return WorkPiece()


def serve(folder: Path, port: int) -> None:
    Logging.path = folder / "log"
    server = IngestServer(
        ItemFraming,
        lambda: Logging("local"),
        folder / "spool",
        port=port,
        config=Config(ingest=IngestSettings(margin_bytes=0)),
    )
    print(server.address[1], flush=True)
    server.run()


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            pass


def run_on_full_disk(disk: Path) -> None:
    """Serve on a small file system, which others fill meanwhile."""
    data = bytes(range(256)) * 4000
    notebook = Notebook()
    notebook.gate.clear()
    with serving(disk / "spool", notebook, margin_bytes=1_000_000) as server:
        with Sender(server.address) as sender:
            sender.item("first", data)
            assert sender.verdict() == ("first", Verdict.ACCEPTED)
            # somebody else takes all the room there is, in mid-item
            half = Sender(server.address)
            head = data[:500_000]
            whole = packed("half", data)
            half.send(whole[: len(head)])
            wait_until(lambda: server.status.received == 2)
            fill(disk / "filler")
            half.send(whole[len(head) :])
            answer = half.answer()
            assert (answer.id, answer.verdict) == ("half", Verdict.LATER), answer
            assert "full" in answer.reason, answer
            # who comes now is told to wait
            sending = threading.Thread(
                target=sender.send, args=(packed("second", data),)
            )
            sending.start()
            answer = sender.answer()
            assert (answer.id, answer.verdict) == ("second", Verdict.WAIT), answer
            # what ends while the disk is full is written down when it can be
            notebook.gate.set()
            wait_until(lambda: notebook.names == ["first"])
            (disk / "filler").unlink()
            assert sender.verdict() == ("second", Verdict.ACCEPTED)
            half.send(whole)
            assert half.verdict() == ("half", Verdict.ACCEPTED)
            sending.join()
            half.close()
        wait_until(lambda: server.status.processed == 3)
    assert sorted(notebook.names) == ["first", "half", "second"]
    assert server.status.rejected == {"spool full": 1}
    assert not list((disk / "spool").glob("*.item"))
    print("ok")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        run_on_full_disk(Path(sys.argv[2]))
