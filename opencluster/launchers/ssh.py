"""Launch on hosts that ssh reaches, with OpenSSH and the user's own configuration.

Owns the command lines, and what the failures of ssh mean. Asks for no password: a host
that wants one is one that fails.
"""

from __future__ import annotations

import os
import shlex

from opencluster.errors import LaunchFailed
from opencluster.launchers.commands import Ran
from opencluster.launchers.description import ClusterFile, Host
from opencluster.launchers.hosts import HostsLauncher
from opencluster.place import Place

SSH_VARIABLE = "OPENCLUSTER_SSH"
"""Names another command than ``ssh``, with its options."""
OPTIONS = (
    *("-T", "-x", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"),
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4"),
)
LOOK_UP_S = 10.0
SSH_FAILED = 255
"""The exit code of ssh itself; all others are those of the command on the host."""
NOT_FOUND = (126, 127)

_CAUSES = (
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
    ("timeout, server", "it stopped answering"),
    ("connection closed", "its ssh server closed the connection"),
    ("connection reset", "its ssh server closed the connection"),
)  # fmt: skip


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
        return f"tcp://{address}:{host.port}"

    def explain(self, host: Host, ran: Ran) -> str:
        """Return why a host gave no answer, and what to do next, on one line."""
        said = ran.errors.lower()
        if ran.code == SSH_FAILED:
            by_hand = shlex.join([*self._ssh(), host.name])
            for sign, cause in _CAUSES:
                if sign in said:
                    return cause.format(host=host.name, by_hand=by_hand)
            return f"ssh failed: {_last(ran.errors)}; try `{by_hand}`"
        if ran.code in NOT_FOUND:
            return (
                f"there is no Python at {host.python}: write `python: PATH` for it in "
                "the cluster file"
            )
        if "no module named" in said and "opencluster.launchers" in said:
            return (
                f"another version of OpenCluster is installed for {host.python}: "
                f"install the one of this computer there"
            )
        if "no module named" in said and "opencluster" in said:
            return (
                f"OpenCluster is not installed for {host.python}: `{host.python} -m "
                "pip install opencluster` there, or name another Python with `python: "
                "PATH`"
            )
        return (
            f"the command on it ended with status {ran.code}: {_last(ran.errors)}; it "
            f"was `{shlex.join(self.command(host, 'up'))}`"
        )

    def _ssh(self) -> list[str]:
        named = os.environ.get(SSH_VARIABLE, "")
        return shlex.split(named) or list(self.file.ssh) or ["ssh"]

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


def _quoted(python: str) -> str:
    """Return a path for a shell of any kind, which has to see the home in it."""
    if python.startswith("~/"):
        return f"~/{shlex.quote(python[2:])}"
    return shlex.quote(python)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
