"""An OpenSSH server on loopback, with keys and configuration of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from traces import VARIABLE

ROOT = Path(__file__).parent.parent.parent
START_S = 20.0

SERVER = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
MaxStartups 100
SetEnv HOME={folder} PYTHONPATH={root} {variable}={mark} TMPDIR={temporary}
"""

CLIENT = """\
Host {hosts}
  HostName 127.0.0.1
  Port {port}
Host stranger
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/other_key
Host closed
  HostName 127.0.0.1
  Port {closed}
Host * !stranger
  IdentityFile {folder}/user_key
Host *
  RemoteCommand exit 3
  RequestTTY yes
  LocalForward 127.0.0.1:{port} 127.0.0.1:1
  ExitOnForwardFailure yes
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  LogLevel ERROR
"""


class SshServer:
    """Lets this user in, as each of some hosts.

    Parameters
    ----------
    folder : Path
        Where its files lie.
    hosts : sequence of str
        The names by which a client's configuration knows it; besides them ``stranger``
        is a host that takes no key of ours, and ``closed`` one where nobody listens.
    """

    def __init__(self, folder: Path, hosts: tuple[str, ...]) -> None:
        self._folder = folder
        for name in ("host_key", "user_key", "other_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
                check=True,
                stdin=subprocess.DEVNULL,
            )
        public = (folder / "user_key.pub").read_text()
        (folder / "authorized_keys").write_text(public)
        self.port, closed = free_ports(2)
        host_key = (folder / "host_key.pub").read_text()
        known = f"[127.0.0.1]:{self.port} {host_key}"
        (folder / "known_hosts").write_text(known)
        (folder / "sshd_config").write_text(
            SERVER.format(
                port=self.port,
                folder=folder,
                root=ROOT,
                variable=VARIABLE,
                mark=os.environ[VARIABLE],
                temporary=os.environ["TMPDIR"],
            )
        )
        self.client_config = folder / "ssh_config"
        self.client_config.write_text(
            CLIENT.format(
                hosts=" ".join(hosts), port=self.port, closed=closed, folder=folder
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> str:
        """The command that reaches the hosts."""
        return shlex.join(["ssh", "-F", str(self.client_config)])

    def start(self) -> None:
        """Serve, and return when connections are taken."""
        # a server of root insists on this empty folder
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        assert program, "install openssh-server"
        log = self._folder / "sshd.log"
        config = self._folder / "sshd_config"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [program, "-D", "-e", "-f", config],
                stdin=subprocess.DEVNULL,
                stderr=file,
            )
        deadline = time.monotonic() + START_S
        while not _answers(self.port):
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        """End it; sessions that are open go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of loopback at which nobody listens."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def script(path: Path, text: str) -> str:
    """Write a program of the shell, and return its path."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def python_without_opencluster(folder: Path) -> str:
    """Return an interpreter that finds no package but those of Python."""
    return script(folder / "bare", f'exec {sys.executable} -I -S "$@"')


def python_with_version(folder: Path, version: str) -> str:
    """Return an interpreter with another version of OpenCluster."""
    code = (
        "import runpy, opencluster; "
        f"opencluster.__version__ = {version!r}; "
        "runpy.run_module('opencluster.launchers.node', None, '__main__', True)"
    )
    command = f'exec {sys.executable} -c {shlex.quote(code)} "$3"'
    return script(folder / "other", command)
