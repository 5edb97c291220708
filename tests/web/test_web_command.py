"""``opencluster web`` as people start it, and what is installed with it."""

from __future__ import annotations

import configparser
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

import pytest
import trustme
from click.testing import CliRunner
from flask import Response, request
from gallery_tools import TIMEOUT_S

from muser_pipeline.realtime.index import ImageRecord
from opencluster.cli import main
from opencluster.errors import ConfigError, SecurityError
from opencluster.place import Place
from opencluster_web.application import WebSettings, create_app
from opencluster_web.serving import WebServer, parse_bind

SOON_S = 5.0
"""Less than the server waits for a client."""
ROOT = Path(__file__).parent.parent.parent


@contextmanager
def served(
    tmp_path: Path, *argv: str, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str, str, socket.socket]]:
    """Serve as people do; yield the process, its address, the first link, its news."""
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.settimeout(TIMEOUT_S)
    told.bind(str(tmp_path / "notify"))
    argv = ("web", "--bind", "127.0.0.1:0", "--dir", str(tmp_path / "cluster"), *argv)
    process = subprocess.Popen(
        [sys.executable, "-m", "opencluster", *argv],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ
        | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        | {f"OPENCLUSTER_WEB_{k.upper()}": v for k, v in (settings or {}).items()},
    )
    with process, told:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        url = re.search(r"https?://127\.0\.0\.1:\d+/", lines[0])
        assert url, "".join(lines) + process.stderr.read()
        assert "there is no administrator yet" in lines[1]
        assert told.recv(100) == b"READY=1"
        try:
            yield process, url[0], lines[2].strip(), told
        except BaseException:
            process.kill()
            raise
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr.read() == ""
        assert told.recv(100) == b"STOPPING=1"


@pytest.mark.processes
def test_it_serves_until_it_is_interrupted(
    archive: tuple[Path, list[ImageRecord]], tmp_path: Path
) -> None:
    guests = {"guests": "true"}
    with served(tmp_path, "--images", str(archive[0]), settings=guests) as (
        _,
        url,
        link,
        _,
    ):
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            assert str(tmp_path / "cluster") in answer.read().decode()
        with urllib.request.urlopen(f"{url}muser/", timeout=TIMEOUT_S) as answer:
            assert answer.status == 200
            assert "Latest images" in answer.read().decode()
        assert link.startswith(f"{url}welcome/")
        with urllib.request.urlopen(link, timeout=TIMEOUT_S) as answer:
            assert "you will be the administrator" in answer.read().decode()


@pytest.mark.processes
def test_pages_are_encrypted_with_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    issued.private_key_pem.write_to_path(key)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    settings = {"tls_certificate": str(chain), "tls_key": str(key)}
    with served(tmp_path, settings=settings) as (_, url, link, _):
        assert url.startswith("https://")
        with urllib.request.urlopen(link, timeout=TIMEOUT_S, context=trust) as answer:
            cookie = answer.headers["Set-Cookie"]
            assert cookie.startswith("__Host-") and "Secure; HttpOnly" in cookie
        # who says nothing keeps nobody else waiting
        address = ("127.0.0.1", urlsplit(url).port)
        with socket.create_connection(address), socket.create_connection(address):
            urllib.request.urlopen(url, timeout=SOON_S, context=trust).close()
        plain = url.replace("https", "http")
        with pytest.raises(OSError, match=r"reset|Bad Request|closed|400"):
            urllib.request.urlopen(plain, timeout=TIMEOUT_S)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tls_certificate": "/nowhere.pem"}, "[web] tls_key is missing"),
        ({"tls_key": "/nowhere.pem"}, "[web] tls_certificate is missing"),
        (
            {"tls_certificate": "/nowhere.pem", "tls_key": "/nowhere.key"},
            "[web] tls_certificate: there is no file /nowhere.pem",
        ),
        (
            {"tls_certificate": __file__, "tls_key": __file__},
            "cannot serve at 127.0.0.1:0 with the certificate in",
        ),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(
    settings: dict[str, str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"OPENCLUSTER_WEB_{name.upper()}", value)
    argv = ["web", "--bind", "127.0.0.1:0", "--dir", str(tmp_path)]
    done = CliRunner().invoke(main, argv, standalone_mode=False)
    assert done.exit_code == 1
    assert words in done.output


@pytest.mark.parametrize("is_behind_proxy", [True, False])
def test_only_a_proxy_in_front_says_who_asks(
    is_behind_proxy: bool, tmp_path: Path
) -> None:
    settings = WebSettings(
        place=Place(tmp_path),
        hosts=("pages.observatory.example", "127.0.0.1"),
        is_encrypted=is_behind_proxy,
        is_behind_proxy=is_behind_proxy,
    )
    app = create_app(settings)
    seen = []

    @app.after_request
    def look(response: Response) -> Response:
        seen.append((request.remote_addr, request.scheme, request.host))
        return response

    server = WebServer(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        told = {
            "X-Forwarded-For": "203.0.113.1, 192.0.2.7",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "pages.observatory.example",
        }
        asked = urllib.request.Request(f"{server.url}login", headers=told)
        with urllib.request.urlopen(asked, timeout=TIMEOUT_S) as answer:
            cookie = answer.headers["Set-Cookie"]
        told["X-Forwarded-Host"] = "evil.example"
        asked = urllib.request.Request(f"{server.url}login", headers=told)
        if is_behind_proxy:
            with pytest.raises(HTTPError, match="421"):
                urllib.request.urlopen(asked, timeout=TIMEOUT_S)
            # the last one was written by the proxy, the others by whoever asks
            assert seen[0] == ("192.0.2.7", "https", "pages.observatory.example")
            assert cookie.startswith("__Host-opencluster=")
            assert "Secure; HttpOnly; Path=/; SameSite=Lax" in cookie
        else:
            urllib.request.urlopen(asked, timeout=TIMEOUT_S).close()
            here = ("127.0.0.1", "http", f"127.0.0.1:{server.port}")
            assert seen == [here, here]
            assert cookie.startswith("opencluster=") and "Secure" not in cookie
    finally:
        server.stop()
        thread.join()


@pytest.mark.parametrize("bind", ["0.0.0.0:80", "192.0.2.1:80", "[::]:80", "host:1"])
def test_passwords_do_not_cross_the_network_as_they_are(
    bind: str, tmp_path: Path
) -> None:
    argv = ["web", "--bind", bind, "--dir", str(tmp_path)]
    done = CliRunner().invoke(main, argv, standalone_mode=False)
    assert done.exit_code == 1
    assert f"refusing to listen at {bind}" in done.output
    assert "behind_proxy = true" in done.output
    assert parse_bind(bind, is_protected=True)[1] in (80, 1)


@pytest.mark.parametrize("bind", ["8080", "127.0.0.1", ":8080", "127.0.0.1:99999", ""])
def test_an_address_that_is_none_is_told(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"write 127\.0\.0\.1:8080"):
        parse_bind(bind)


def test_loopback_has_several_names() -> None:
    assert parse_bind("localhost:80") == ("localhost", 80)
    assert parse_bind("[::1]:0") == ("[::1]", 0)
    with pytest.raises(SecurityError, match="ssh -L 80:"):
        parse_bind("::1:80")


def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        argv = ["web", "--images", str(tmp_path), "--bind", bind]
        done = CliRunner().invoke(main, argv)
    assert done.exit_code == 1
    assert f"cannot listen at {bind}" in done.output


def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opencluster_web.application")
    monkeypatch.setitem(sys.modules, "flask_bootstrap", None)
    done = CliRunner().invoke(main, ["web", "--images", str(tmp_path)])
    assert done.exit_code == 1
    assert "needs the Python package flask_bootstrap" in done.output
    assert "pip install 'opencluster[web]'" in done.output


def test_help_has_an_example() -> None:
    shown = CliRunner().invoke(main, ["web", "--help"]).output
    assert "opencluster web --images images --bind" in shown
    assert "  web " in CliRunner().invoke(main, ["--help"]).output


def test_every_template_and_asset_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["opencluster_web"].split()
    installed = {path for pattern in patterns for path in (ROOT / "web").glob(pattern)}
    there = {
        path
        for folder in ("static", "templates")
        for path in (ROOT / "web" / folder).rglob("*")
        if path.is_file()
    }
    assert there <= installed
    assert not [path for path in there if ".min." in path.name]
