"""A Slurm of the tests' own, as Debian packages it: one computer plays several."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

START_TIMEOUT_S = 60.0
PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where its daemons are, also for users who have not all of these in their PATH."""
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool-%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd-%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
KillWait=20
ReturnToService=2
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 "
    "Gres=gpu:2"
)
# Slurm hands out what is a device, whatever it is
GPUS = "AutoDetect=off\nName=gpu File=/dev/null\nName=gpu File=/dev/zero\n"


class SlurmSite:
    """Munge, a controller, and a daemon for each computer that is played.

    Parameters
    ----------
    nodes : int
        How many computers: ``n1``, ``n2`` and so on.
    """

    def __init__(self, nodes: int) -> None:
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        # other users' daemons have to pass through it
        self.directory = Path(tempfile.mkdtemp(prefix="oc-slurm-", dir="/tmp"))
        self.configuration = self.directory / "slurm.conf"
        self._processes: list[subprocess.Popen[bytes]] = []
        host = socket.gethostname().partition(".")[0]
        ports = _free_ports(1 + nodes)
        listed = [
            NODE.format(name=name, host=host, port=port)
            for name, port in zip(self.names, ports[1:], strict=True)
        ]
        for name in ("state", *(f"spool-{name}" for name in self.names)):
            (self.directory / name).mkdir(mode=0o700)
        self.configuration.write_text(
            CONFIGURATION.format(
                host=host,
                ports=ports,
                user=getpass.getuser(),
                directory=self.directory,
                nodes="\n".join(listed),
            )
        )
        (self.directory / "gres.conf").write_text(GPUS)
        key = self.directory / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))

    @property
    def environment(self) -> dict[str, str]:
        """What commands need to find it."""
        return {"SLURM_CONF": str(self.configuration)}

    def start(self) -> None:
        """Start it, and wait until all its computers are idle."""
        own = self.directory
        self._spawn(
            *("munged", "--foreground", "--force", f"--socket={own}/munge.socket"),
            *(f"--key-file={own}/munge.key", f"--log-file={own}/munged.log"),
            *(f"--pid-file={own}/munged.pid", f"--seed-file={own}/munged.seed"),
            "--num-threads=1",
        )
        self._await((own / "munge.socket").is_socket)
        self._spawn("slurmctld", "-D")
        for name in self.names:
            self._spawn("slurmd", "-D", "-N", name)
        self._await(lambda: self.idle() == self.names)

    def idle(self) -> list[str]:
        """Return the computers that have nothing to do."""
        command = ("sinfo", "-h", "-N", "-t", "idle", "-o", "%N")
        return sorted(self._answer(*command).stdout.split())

    def jobs(self) -> dict[str, str]:
        """Return the states of the jobs that have not ended."""
        return dict(
            line.split()
            for line in self.ask("squeue", "-h", "-o", "%i %T").splitlines()
        )

    def ask(self, *command: str) -> str:
        """Run one of Slurm's commands, and return what it prints."""
        done = self._answer(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _answer(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
        )

    def remove(self) -> None:
        """End it with all jobs."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _spawn(self, *command: str) -> None:
        with (self.directory / f"{command[0]}.out").open("ab") as output:
            # ends with the tests, however they end
            self._processes.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", *command],
                    cwd=self.directory,
                    env=os.environ | self.environment | {"PATH": PROGRAMS},
                    stdout=output,
                    stderr=output,
                )
            )

    def _await(self, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_there():
            for process in self._processes:
                assert process.poll() is None, self._said()
            assert time.monotonic() < deadline, self._said()
            time.sleep(0.05)

    def _said(self) -> str:
        files = [*self.directory.glob("*.out"), *self.directory.glob("*.log")]
        return "\n".join(f"{p.name}:\n{p.read_text()[-2000:]}" for p in files)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
