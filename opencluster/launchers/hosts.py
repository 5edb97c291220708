"""Launch on hosts that the file names: orders go out in parallel, factories first.

Owns the order of events and the report. How a host is reached is its subclass's.
"""

from __future__ import annotations

import random
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from opencluster.config import load
from opencluster.config.render import render_sections
from opencluster.core.roles import FACTORY, WORKSHOP
from opencluster.errors import (
    FactoryUnreachable,
    LaunchFailed,
    OpenClusterError,
    indent,
)
from opencluster.launchers import embedded
from opencluster.launchers.base import FixedHosts, Outcome, Tell, failures
from opencluster.launchers.commands import Commands, Ran
from opencluster.launchers.description import ClusterFile, Host
from opencluster.launchers.joining import join_in
from opencluster.launchers.missing import missing_in
from opencluster.launchers.order import Answer, Order, answer_in
from opencluster.launchers.planning import (
    KEYS_OF_ROLES,
    cluster_keys,
    is_insecure,
    node_directory,
    orders_of,
)
from opencluster.launchers.record import (
    check_same_file,
    forget_record,
    keep_record,
    recorded,
)
from opencluster.place import Place

MAX_AT_ONCE = 32
"""Hosts that are spoken to at the same time."""
UP_LIMIT_S = 180.0
"""How long a host may take to start its daemons: one after the other, and to log in."""
DOWN_LIMIT_S = 180.0
"""How long a host may take to end them: workers finish what they have in hand."""

LOOK_LIMIT_S = 60.0
"""How long a host may take to say whether they are there."""

LOCK = "launch.lock"
"""Two commands at a time would make two sets of keys, and forget each other's hosts."""

ATTEMPTS = 4
PAUSE_S = 1.0
"""Before a command is run again that failed in passing; then doubled."""

Deed = Callable[[Host], Outcome]


@dataclass(frozen=True)
class Cause:
    """Why a host gave no answer.

    Attributes
    ----------
    message : str
        For people, on one line, with what to do next.
    may_run : bool
        Whether something may have begun on the host all the same.
    is_passing : bool
        Whether the same command may well succeed in a moment.
    """

    message: str
    may_run: bool = True
    is_passing: bool = False


class HostsLauncher(FixedHosts, ABC):
    """Brings the daemons of a cluster file onto the hosts that it names.

    Parameters
    ----------
    file : ClusterFile
        The cluster file.
    place : Place
        The directory from which the cluster is controlled.

    Attributes
    ----------
    is_restart : bool
        End what runs with another order, and start it anew.
    """

    def __init__(self, file: ClusterFile, place: Place) -> None:
        self.file = file
        self.place = place
        self.is_restart = False
        self._commands = Commands()
        self._untouched: set[str] = set()
        self._computers: dict[str, str] = {}
        self._ran_before: dict[str, Answer] = {}

    # --- how a host is reached ----------------------------------------------

    @abstractmethod
    def command(self, host: Host, deed: str) -> list[str]:
        """Return the command that carries out a deed of ``launchers.node``."""

    @abstractmethod
    def endpoint(self, host: Host) -> str:
        """Return where others reach the factory of a host; nothing if none does."""

    @abstractmethod
    def explain(self, host: Host, ran: Ran) -> Cause:
        """Return why a host gave no answer."""

    # --- what a launcher does ------------------------------------------------

    def describe(self) -> str:
        """Return what `launch` would do: commands, and the files that it writes."""
        orders = self._orders(None)
        shown = [f"# controlled from {self.place.path}"]
        for host in self.file.hosts:
            shown.append(self._described(host, orders[host.name]))
        return "\n".join(shown)

    def launch(self, tell: Tell) -> list[Outcome]:
        """Start what the file asks for and does not run yet."""
        self.place.make()
        with embedded.alone(self.place, LOCK):
            return self._launch(tell)

    def take_down(self, tell: Tell) -> list[Outcome]:
        """End everything that was launched from this place."""
        if not self.place.path.is_dir():
            return self._take_down(tell)
        with embedded.alone(self.place, LOCK):
            return self._take_down(tell)

    def look_again(self, outcomes: list[Outcome], tell: Tell) -> list[Outcome]:
        """Look whether what was launched is there still, and return what became of all.

        A host may end what a log-in leaves. Only those are asked that are missed.
        """
        done = {outcome.host for outcome in outcomes if outcome.is_done}
        missed = self._missed()
        hosts = [host for host in self.file.hosts if host.name in done & missed]

        def look(host: Host) -> Outcome:
            order = Order(host.name, self.directory(host), host.roles)
            return self._order(host, "look", order, LOOK_LIMIT_S)

        looked = self._each(hosts, look, lambda o: None if o.is_done else tell(o))
        failed = {outcome.host: outcome for outcome in failures(looked)}
        return [failed.get(outcome.host, outcome) for outcome in outcomes]

    def _missed(self) -> set[str]:
        """Return the hosts of which the cluster lacks something, or does not answer."""
        try:
            with embedded.control_of(load(), self.place) as control:
                status = control.factory("status")
        except FactoryUnreachable:
            return {host.name for host in self.file.hosts}
        return missing_in(status, self.file.hosts, self._endpoints)

    def _launch(self, tell: Tell) -> list[Outcome]:
        before = recorded(self.place)
        self._check_place(before)
        orders = self._orders(self._keys())
        # killed from here on, it leaves word of where something may run
        self._record(before or self.file, before)
        self._write_cluster_file()
        factories = [host for host in self.file.hosts if host.is_factory]
        others = [host for host in self.file.hosts if not host.is_factory]

        def start(host: Host) -> Outcome:
            return self._order(host, "up", orders[host.name], UP_LIMIT_S)

        outcomes = self._each(factories, start, tell)
        if failures(outcomes) == outcomes:
            reason = "not tried, since no factory runs that it could register with"
            for host in others:
                outcomes.append(Outcome(host.name, False, reason))
                tell(outcomes[-1])
                self._untouched.add(host.name)
        else:
            outcomes += self._each(others, start, tell)
        was_done = failures(outcomes) != outcomes
        if was_done:
            outcomes = self._join_in(outcomes, tell)
        self._record(self.file if was_done else before or self.file, before)
        if not self._recorded_hosts():
            self._forget([])
        return outcomes

    def _take_down(self, tell: Tell) -> list[Outcome]:
        hosts = self._recorded_hosts()
        factories = [host for host in hosts if host.is_factory]
        others = [host for host in hosts if not host.is_factory]
        outcomes = self._each(others, self._ending(WORKSHOP, FACTORY), tell)
        # workshops first: they tell the factories goodbye for their workers
        shut: dict[str, Outcome] = {}
        self._each(
            factories, self._ending(WORKSHOP), lambda o: shut.update({o.host: o})
        )
        end = self._ending(WORKSHOP, FACTORY)

        def end_factory(host: Host) -> Outcome:
            first = shut[host.name]
            return end(host) if first.is_done else first

        outcomes += self._each(factories, end_factory, tell)
        left = {outcome.host for outcome in failures(outcomes)}
        self._forget([host for host in hosts if host.name in left])
        return outcomes

    # --- one host ------------------------------------------------------------

    def _ending(self, *roles: str) -> Deed:
        def end(host: Host) -> Outcome:
            order = Order(host.name, self.directory(host), roles)
            return self._order(host, "down", order, DOWN_LIMIT_S)

        return end

    def _order(self, host: Host, deed: str, order: Order, limit_s: float) -> Outcome:
        begun = time.monotonic()
        try:
            ran = self._run(host, self.command(host, deed), order, limit_s)
        except OpenClusterError as error:
            self._untouched.add(host.name)
            return Outcome(host.name, False, str(error))
        answer = answer_in(ran.output)
        if answer is not None:
            return self._outcome(host, answer, time.monotonic() - begun)
        if ran.code is None:
            message = f"no answer within {limit_s:g} s; run the command again"
            return Outcome(host.name, False, message, ran.errors.strip())
        cause = self.explain(host, ran)
        if not cause.may_run:
            self._untouched.add(host.name)
        return Outcome(host.name, False, cause.message, ran.errors.strip())

    def _run(self, host: Host, command: list[str], order: Order, limit_s: float) -> Ran:
        """Run a command, and again after a while when it failed in passing."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            ran = self._commands.run(command, order.to_json(), limit_s)
            has_failed = ran.code is not None and answer_in(ran.output) is None
            if not has_failed or not self.explain(host, ran).is_passing:
                break
        return ran

    def _outcome(self, host: Host, answer: Answer, elapsed_s: float) -> Outcome:
        first, _, rest = answer.message.partition("\n")
        detail = answer.output or rest
        if not answer.may_run:
            self._untouched.add(host.name)
        if answer.catalogue:
            self._ran_before[host.name] = answer
        if answer.is_done:
            first = f"{first} ({elapsed_s:.1f} s){self._twin(host, answer)}"
        return Outcome(host.name, answer.is_done, first, detail)

    def _twin(self, host: Host, answer: Answer) -> str:
        """Return a remark on a computer that has workers under another name, too."""
        if not answer.computer or WORKSHOP not in host.roles:
            return ""
        first = self._computers.setdefault(answer.computer, host.name)
        if first == host.name:
            return ""
        return f"; mind that it is the computer that {first} is, so has two workshops"

    def _join_in(self, outcomes: list[Outcome], tell: Tell) -> list[Outcome]:
        """Have workshops that run take over what is new; return what became of all."""
        if not self._ran_before:
            return outcomes
        try:
            with embedded.control_of(load(), self.place) as control:
                reasons = join_in(control, self._ran_before)
        except OpenClusterError as error:
            ran = self._ran_before.items()
            reasons = {name: str(error) for name, each in ran if each.is_changed}
        failed = {
            name: Outcome(name, False, f"does not take over what is new: {reason}")
            for name, reason in reasons.items()
        }
        for outcome in failed.values():
            tell(outcome)
        return [failed.get(outcome.host, outcome) for outcome in outcomes]

    def _each(self, hosts: Sequence[Host], deed: Deed, tell: Tell) -> list[Outcome]:
        """Do it on all of these at once; outcomes come in the order of the hosts."""
        if not hosts:
            return []
        pool = ThreadPoolExecutor(min(MAX_AT_ONCE, len(hosts)), "launch")
        try:
            running = {pool.submit(deed, host): host.name for host in hosts}
            found: dict[str, Outcome] = {}
            for done in as_completed(running):
                found[running[done]] = done.result()
                tell(done.result())
        except BaseException:
            self._commands.stop()
            pool.shutdown(cancel_futures=True)
            raise
        pool.shutdown()
        return [found[host.name] for host in hosts]

    # --- what is prepared ----------------------------------------------------

    @cached_property
    def _endpoints(self) -> list[str]:
        """The endpoints of all factories, in the order of their hosts."""
        hosts = [host for host in self.file.hosts if host.is_factory]
        with ThreadPoolExecutor(MAX_AT_ONCE) as pool:
            found = [e for e in pool.map(self.endpoint, hosts) if e]
        twins = sorted({each for each in found if found.count(each) > 1})
        if twins:
            raise LaunchFailed(
                f"two factories would be at {twins[0]}: take one of these hosts out, "
                "or give it another `port:` or `roles: [workshop]`"
            )
        return found

    def directory(self, host: Host) -> str:
        """Return where a host keeps what is its own; ``~`` is the home there."""
        return node_directory(self.file, host.name)

    def _keys(self) -> Path | None:
        """Return the directory of all keys, which are made when there are none."""
        return cluster_keys(self.file, self.place)

    def _orders(self, keys: Path | None) -> dict[str, Order]:
        orders = orders_of(self.file, self._endpoints, keys, self.is_restart)
        return {
            host.name: replace(orders[host.name], directory=self.directory(host))
            for host in self.file.hosts
        }

    def _check_place(self, before: ClusterFile | None) -> None:
        """Refuse a place from which something else was launched, or runs."""
        if before is not None:
            check_same_file(before, self.file)
            for key in ("launcher", "directory"):
                known, wanted = getattr(before, key), getattr(self.file, key)
                if known != wanted:
                    raise LaunchFailed(
                        f"what runs was launched with {key}: {known}, and the file has "
                        f"{wanted} now: `opencluster down` first"
                    )
        self._check_alone()

    def _check_alone(self) -> None:
        """Refuse a place whose own cluster runs on this computer."""
        rows = embedded.daemons(self.place.read())
        alive = [row for row in rows if embedded.is_alive(row)]
        if alive:
            raise LaunchFailed(
                f"another cluster runs in {self.place.path} (pid {alive[0]['pid']}): "
                "stop it with `opencluster stop`, or choose another --dir"
            )

    def _record(self, file: ClusterFile, before: ClusterFile | None) -> None:
        """Note what is launched, also on hosts that the file has no more.

        Parameters
        ----------
        file : ClusterFile
            What is in force.
        before : ClusterFile, optional
            What was noted so far.
        """
        old = {host.name: host for host in before.hosts} if before else {}
        new = {h.name: h for h in self.file.hosts if h.name not in self._untouched}
        keep_record(self.place, replace(file, hosts=tuple((old | new).values())))

    def _recorded_hosts(self) -> tuple[Host, ...]:
        return (recorded(self.place) or self.file).hosts

    def _write_cluster_file(self) -> None:
        """Note where the factories are, for all commands with this place."""
        rows = [{"endpoints": [endpoint]} for endpoint in self._endpoints]
        content = {"factories": rows, "workshops": [], "started_at": time.time()}
        self.place.write(content)

    def _forget(self, left: Sequence[Host]) -> None:
        """Note that all have ended but these."""
        if not self.place.path.is_dir():
            return
        if left:
            keep_record(self.place, replace(self.file, hosts=tuple(left)))
        else:
            forget_record(self.place)
        if not any(host.is_factory for host in left):
            self.place.forget()

    def _described(self, host: Host, order: Order) -> str:
        """Return what would be done on a host, without any secret."""
        keys = [f"{name}.key" for role in host.roles for name in KEYS_OF_ROLES[role]]
        lines = [
            "",
            f"# {host.name}: {', '.join(host.roles)}",
            f"$ {shlex.join(self.command(host, 'up'))}",
            f"directory {order.directory}",
        ]
        if self._endpoints and not is_insecure(self.file):
            lines.append(f"keys {', '.join(keys)}")
        if order.files:
            lines.append(f"programs {', '.join(order.files)}")
        lines += ["config.ini:", indent(render_sections(order.sections).strip())]
        return "\n".join(lines)
