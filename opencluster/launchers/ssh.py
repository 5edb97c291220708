"""Launch on hosts that ssh reaches, with OpenSSH and the user's own configuration.

Owns the command lines, and what the failures of ssh mean. Asks for no password: a host
that wants one is one that fails.
"""

from __future__ import annotations

import os
import re
import shlex

from opencluster.errors import ConfigError, LaunchFailed
from opencluster.launchers.commands import Ran
from opencluster.launchers.description import ClusterFile, Host
from opencluster.launchers.hosts import Cause, HostsLauncher
from opencluster.place import Place, is_loopback

SSH_VARIABLE = "OPENCLUSTER_SSH"
"""Names another command than ``ssh``, with its options."""
OPTIONS = (
    *("-T", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4"),
    # of the user's configuration, what is for people at a terminal
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)
LOOK_UP_S = 10.0
SSH_FAILED = 255
"""The exit code of ssh itself; all others are those of the command on the host."""
NOT_FOUND = (126, 127)

_NOT_ENTERED = (
    ("could not resolve hostname", "its name does not resolve: correct it in the "
     "cluster file, or add it to ~/.ssh/config or the name service"),
    ("host key verification failed", "its host key is unknown or has changed: run "
     "`{by_hand}` by hand once, and compare the fingerprint"),
    ("permission denied", "it lets nobody in with your keys: `ssh-copy-id {host}`, or "
     "`ssh-add` if the key has a pass phrase; `{by_hand}` must ask for no password"),
    ("too many authentication failures", "ssh offers too many keys: name the one for "
     "it in ~/.ssh/config, with IdentityFile and IdentitiesOnly"),
    ("connection refused", "no ssh server listens there: start it, or name its port "
     "in ~/.ssh/config"),
    ("no route to host", "it is off, or no network leads there"),
    ("network is unreachable", "it is off, or no network leads there"),
    ("connection timed out", "it does not answer: it is off, or a firewall is between"),
    ("timed out during banner", "its ssh server does not answer"),
)  # fmt: skip
_LOST = (
    ("timeout, server", "it stopped answering; run the command again"),
    ("connection closed", "its ssh server closed the connection; see its log"),
    ("connection reset", "its ssh server closed the connection; see its log"),
)
"""Signs in what ssh says, in lower case, and what they mean."""
_CROWDED = "exchange_identification"
"""In what ssh says when a server, such as a jump host, hangs up before any greeting."""
_NO_MODULE = re.compile(r"no module named '?(opencluster[\w.]*)")


def launcher(file: ClusterFile, place: Place) -> SshLauncher:
    """Return the launcher of a cluster file that lists hosts."""
    return SshLauncher(file, place)


class SshLauncher(HostsLauncher):
    """Gives orders to hosts through ssh."""

    def command(self, host: Host, deed: str) -> list[str]:
        """Return the command that carries out a deed of ``launchers.node``."""
        there = f"exec {_quoted(host.python)} -m opencluster.launchers.node {deed}"
        return [*self._ssh(), *OPTIONS, "--", host.name, there]

    def endpoint(self, host: Host) -> str:
        """Return where others reach its factory: at what ssh takes the name for."""
        address = host.address or self._hostname(host.name)
        if not host.address and is_loopback(address):
            self._check_reach(host, address)
        if ":" in address:
            raise LaunchFailed(
                f"the factory on {host.name} would be at {address}, and OpenCluster "
                "talks IPv4: write `address: ADDRESS` for it in the cluster file"
            )
        return f"tcp://{address}:{host.port}"

    def _check_reach(self, host: Host, address: str) -> None:
        """Refuse a factory that no other computer could reach."""
        others = [self._hostname(h.name) for h in self.file.hosts if h != host]
        if not all(map(is_loopback, others)):
            raise LaunchFailed(
                f"the factory on {host.name} would be at {address}, where no other "
                "computer reaches it: write `address: ADDRESS` for it in the cluster "
                "file"
            )

    def explain(self, host: Host, ran: Ran) -> Cause:
        """Return why a host gave no answer."""
        said = ran.errors.lower()
        by_hand = shlex.join([*self._ssh(), host.name])
        if ran.code == SSH_FAILED:
            if _CROWDED in said:
                told = (
                    "its ssh server, or one on the way, takes no more connections at "
                    "a time: raise MaxStartups there, or run the command again"
                )
                return Cause(told, may_run=False, is_passing=True)
            for sign, cause in (*_NOT_ENTERED, *_LOST):
                if sign in said:
                    told = cause.format(host=host.name, by_hand=by_hand)
                    return Cause(told, may_run=(sign, cause) in _LOST)
            return Cause(f"ssh failed: {_last(ran.errors)}; try `{by_hand}`")
        if ran.code in NOT_FOUND:
            return Cause(
                f"there is no Python at {host.python}: write `python: PATH` for it in "
                "the cluster file",
                may_run=False,
            )
        missing = _NO_MODULE.search(said)
        if missing:
            return Cause(_not_installed(host, missing[1]), may_run=False)
        return Cause(
            f"its Python ended with status {ran.code}: {_last(ran.errors)}; see "
            f"whether `{by_hand} {_quoted(host.python)} -V` works"
        )

    def _ssh(self) -> list[str]:
        named = os.environ.get(SSH_VARIABLE, "")
        try:
            return shlex.split(named) or list(self.file.ssh) or ["ssh"]
        except ValueError as error:
            raise ConfigError(f"{SSH_VARIABLE} is no command line: {error}") from None

    def _hostname(self, name: str) -> str:
        """Return the name or address that the user's configuration has for a host."""
        try:
            asked = [*self._ssh(), "-G", "--", name]
            ran = self._commands.run(asked, "", LOOK_UP_S)
        except LaunchFailed:
            return name.rpartition("@")[2]
        for line in ran.output.splitlines():
            key, _, value = line.partition(" ")
            if key == "hostname" and value:
                return value
        return name.rpartition("@")[2]


def _not_installed(host: Host, module: str) -> str:
    # an older version lacks a part
    if module != "opencluster":
        return (
            f"another version of OpenCluster is installed for {host.python}: install "
            "the one of this computer there"
        )
    return (
        f"OpenCluster is not installed for {host.python}: `{host.python} -m pip "
        "install opencluster` there, or name another Python with `python: PATH`"
    )


def _quoted(python: str) -> str:
    """Return a path for a shell of any kind, which has to see the home in it."""
    if python.startswith("~/"):
        return f"~/{shlex.quote(python[2:])}"
    return shlex.quote(python)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
