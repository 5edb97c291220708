"""Frames of archives and simulations, sent by the commands that people use."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme
from click.testing import CliRunner
from feed import START_NS, feed

from muser_pipeline.archive import index_archive
from muser_pipeline.array import FRAME_PERIOD_NS, load_array
from muser_pipeline.cli import muser_command
from muser_pipeline.raw import received_raw
from muser_pipeline.realtime import sending
from muser_pipeline.realtime.framing import item_name
from muser_pipeline.realtime.sending import (
    Block,
    Pacer,
    archived,
    by_interval,
    simulated,
)
from muser_pipeline.simulator import Instrument, Observation, read_sky

ROOT = Path(__file__).parents[2]
END_NS = START_NS + 10**12


def write(folder: Path, name: str, frames: np.ndarray) -> None:
    path = folder / "20151101" / "MUSER-1" / "dat" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(frames.tobytes())


def test_the_frames_of_an_archive_come_once_and_by_time(tmp_path: Path) -> None:
    frames = feed(80)
    damaged = frames[:50].copy()
    damaged[20, :28] = 0
    write(tmp_path, "20151101-1200", damaged)
    # the second file has some of the first one's
    write(tmp_path, "20151101-1201", frames[45:])
    archive = index_archive(tmp_path, 1)
    blocks = list(archived(archive, START_NS, END_NS))
    expected = np.delete(frames, 20, 0)
    assert np.array_equal(np.concatenate([b.frames for b in blocks]), expected)
    times = np.concatenate([b.time_utc_ns for b in blocks])
    assert np.array_equal(
        times, np.delete(START_NS + np.arange(80) * FRAME_PERIOD_NS, 20)
    )
    some = list(archived(archive, int(times[10]), int(times[12])))
    assert np.array_equal(some[0].frames, frames[10:12])
    assert len(some) == 1


def test_blocks_are_put_together_by_interval() -> None:
    times = START_NS + np.arange(30) * FRAME_PERIOD_NS
    frames = np.arange(30, dtype=np.uint8)[:, np.newaxis]
    blocks = [Block(times[a:b], frames[a:b]) for a, b in ((4, 9), (9, 17), (17, 30))]
    found = list(by_interval(blocks, 8 * FRAME_PERIOD_NS))
    assert [block.frames[:, 0].tolist() for block in found] == [
        [4, 5, 6, 7],
        list(range(8, 16)),
        list(range(16, 24)),
        list(range(24, 30)),
    ]
    assert [block.time_utc_ns[0] for block in found] == times[[4, 8, 16, 24]].tolist()


def test_frames_are_held_back_until_their_time() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds

    pacer = Pacer(2.0, lambda: now[0], sleep)
    for second in (0, 1, 2):
        pacer.wait(START_NS + second * 10**9)
    # a sender that was held up makes good for it
    now[0] += 1.25
    pacer.wait(START_NS + 3 * 10**9)
    pacer.wait(START_NS + 4 * 10**9)
    pacer.wait(START_NS + 5 * 10**9)
    assert slept == [0.5, 0.5, 0.25]
    Pacer(0.0, lambda: now[0], sleep).wait(START_NS)
    assert len(slept) == 3


def test_what_is_simulated_is_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "AT_A_TIME", 2)
    (tmp_path / "sky.toml").write_text("[sun]\n")
    observation = Observation(
        1,
        read_sky(tmp_path / "sky.toml"),
        Instrument.random(load_array(1), np.random.default_rng(1)),
        START_NS,
    )
    blocks = list(simulated(observation, 3))
    assert [len(block.frames) for block in blocks] == [2, 1]
    with received_raw(b"".join(block.frames.tobytes() for block in blocks)) as raw:
        assert len(raw) == 3
        assert raw.time_utc_ns.tolist() == [
            START_NS + n * FRAME_PERIOD_NS for n in range(3)
        ]


class Server:
    """`opencluster muser serve` in a process."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.images = folder / "images"
        self.status_file = folder / "status.json"
        ours = f"{ROOT}{os.pathsep}{Path(__file__).parent}"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "opencluster", "muser", "serve"),
                *("--bind", "127.0.0.1:0", "--spool", str(folder / "spool")),
                *("--images", str(self.images), "--engine", "local"),
                *("--status-file", str(self.status_file)),
                *("--manager", "realtime_programs:Noting", "--drain", *options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": ours},
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening at 127.0.0.1:(\d+)\n", line)
        assert found, self.process.communicate()
        self.port = int(found[1])

    def stop(self) -> str:
        """End it, and return what it says."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, said
        return said


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for server in made:
        server.process.kill()
        server.process.communicate()


def send(*arguments: object) -> str:
    done = CliRunner().invoke(muser_command, ["send", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stderr


def noted(data: np.ndarray) -> str:
    return f"{data.size} {zlib.crc32(data.reshape(-1))}"


@pytest.mark.processes
def test_an_archive_is_sent_as_a_feed(tmp_path: Path, servers: list[Server]) -> None:
    frames = feed(24, first=312)
    write(tmp_path, "20151101-1200", frames)
    servers.append(Server(tmp_path))
    server = servers[0]
    said = send(tmp_path, "--to", f"127.0.0.1:{server.port}", "--rate", "max")
    assert re.match(r"2\.4 MB in .* MB/s; 1 connection\n", said)
    ended = server.stop()
    assert "2 items and 2.4 MB received; 2 accepted; 0 in the spool" in ended
    assert json.loads(server.status_file.read_text())["processed"] == 2
    for part in (frames[:8], frames[8:]):
        first = START_NS + int(part[0, 3000:3008].view("<u8")[0]) * FRAME_PERIOD_NS
        assert (server.images / item_name(1, first)).read_text() == noted(part)


@pytest.mark.processes
def test_items_are_sent_with_certificates_and_once(
    tmp_path: Path, servers: list[Server]
) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    made.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = []
    for option, name in (("cert", "cert"), ("key", "key"), ("ca", "ca")):
        tls += [f"--tls-{option}", str(tmp_path / f"{name}.pem")]
    frames = feed(24)
    write(tmp_path, "20151101-1200", frames)
    servers.append(Server(tmp_path, "--framing", "items", *tls))
    server = servers[0]
    to = [tmp_path, "--to", f"localhost:{server.port}", "--framing", "items", *tls]
    options = ["--rate", "10x", "--interval", "25ms"]
    said = send(*to, *options)
    assert said.endswith("; 3 items accepted\n")
    said = send(*to, *options)
    assert said.endswith("; 0 items accepted, 3 known already\n")
    # nobody comes in without
    plain = ["send", *map(str, to[:5]), "--patience", "100ms"]
    done = CliRunner().invoke(muser_command, plain)
    assert "does the server use TLS, and this framing?" in str(done.exception)
    ended = server.stop()
    assert "3 accepted; 0 in the spool (0.0 MB); 3 processed; 3 known already" in ended
    assert len(list(server.images.iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["send"], "give a DIRECTORY of raw files, or --sky"),
        (["send", ".", "--rate", "fast"], "'fast' is no rate such as 1x, 0.5x or max"),
        (["send", ".", "--to", "here"], "'here' is no address such as 127.0.0.1:9110"),
        (["send", "."], ". has no raw files of MUSER-I; see --array"),
        (["serve", "--spool", "s"], "--images is needed: where do they go?"),
        (["serve", "--spool", "s", "--interval", "x"], "x"),
        (
            ["serve", "--spool", "s", "--images", "i", "--manager", "zlib:crc32"],
            "zlib:crc32 is no Manager; write MODULE:CLASS",
        ),
        (
            ["serve", "--spool", "s", "--images", "i", "--option", "clean"],
            "'clean': write NAME=VALUE",
        ),
        (
            ["serve", "--spool", "s", "--images", "i", "--tls-cert", __file__],
            "--tls-cert, --tls-key and --tls-ca go together",
        ),
    ],
)
def test_wrong_options_are_explained(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(muser_command, arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr


def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    write(tmp_path, "20151101-1200", feed(2))
    arguments = ["send", str(tmp_path), "--to", "127.0.0.1:1", "--patience", "1ms"]
    done = CliRunner().invoke(muser_command, arguments)
    assert "127.0.0.1 port 1 cannot be reached: Connection refused" in str(
        done.exception
    )
