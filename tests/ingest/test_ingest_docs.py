"""What docs/protocols.md and docs/realtime.md say of ingest is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from ingest_tools import Notebook, serving, wait_until

from opencluster.ingest import IngestStatus, Verdict

ROOT = Path(__file__).parents[2]
PROTOCOL = (
    (ROOT / "docs" / "protocols.md").read_text().partition("## Items over TCP")[2]
)
PAGE = (ROOT / "docs" / "realtime.md").read_text()


def client() -> Callable[[tuple[str, int], bytes, bytes], tuple[int, str]]:
    (code,) = re.findall(r"```python\n(.*?)```", PROTOCOL, re.DOTALL)
    names: dict[str, Callable[..., tuple[int, str]]] = {}
    exec(code, names)
    return names["send"]


def test_the_client_of_the_page_is_understood(tmp_path: Path) -> None:
    send = client()
    notebook = Notebook()
    with serving(tmp_path, notebook, max_item_bytes=10_000) as server:
        assert send(server.address, b"a", b"data") == (Verdict.ACCEPTED, "")
        assert send(server.address, b"a", b"data") == (Verdict.KNOWN, "")
        verdict, reason = send(server.address, b"b", bytes(20_000))
        assert (verdict, reason) == (
            Verdict.REFUSED,
            "20,000 bytes, the most is 10,000",
        )
        wait_until(lambda: notebook.seen == [("a", b"data")])


def test_all_verdicts_and_counts_are_explained() -> None:
    for verdict in Verdict:
        assert f"\n| {verdict.value} | {verdict.name.lower()} |" in PROTOCOL
    for field in fields(IngestStatus):
        assert f"`{field.name}`" in PAGE, field.name


def test_the_server_of_the_page_works(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    shown = "port=0)\nprint(server.address[1], flush=True)\n"
    program = code.replace("port=9110)\n", shown)
    assert shown in program
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENCLUSTER_ENGINE": "local"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            assert client()(("127.0.0.1", port), b"a", b"data") == (0, "")
            assert process.stdout.readline() == "a 4\n"
        finally:
            process.kill()
