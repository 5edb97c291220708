"""The logs of all computers of a cluster in one place, for the terminal and the pages.

Whoever looks remembers where each log was left, so nothing is kept for anybody. A
computer that does not answer is named, and keeps nobody from the logs of the others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from opencluster.core.log_lines import LEVELS, Head, Wanted, head_of, messages
from opencluster.errors import OpenClusterError
from opencluster.net.control import Control
from opencluster.node.host import host_name
from opencluster.node.log_reading import Position, passages
from opencluster.place import Place

UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}
PATIENCE_S = 3.0
"""A look does not wait longer for a computer."""
AT_ONCE = 16
"""Computers that are asked at the same time."""
MAX_LINE = 2000
"""Characters of a line that are shown."""
MAX_MESSAGE = 100
"""Lines of a message that are shown: its first and its last ones."""

Look = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Asks about the logs of one computer, and returns its answer."""
Positions = dict[str, dict[str, Position]]
"""Where each log was left, by computer and process."""

_UNSEEN = re.compile(
    # what terminals obey: sequences, then single characters, then changes of direction
    "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?"
    "|[\x00-\x08\x0a-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


@dataclass(frozen=True)
class Message:
    """What a process said at once.

    Attributes
    ----------
    computer, process : str
        Who said it.
    head : Head or None
        What its first line says of it; None for what was only printed.
    time : str
        UTC; of what was printed, that of the message before it.
    lines : sequence of str
        As they stand in the log.
    """

    computer: str
    process: str
    head: Head | None
    time: str
    lines: Sequence[str]


@dataclass
class Seen:
    """What a look at the logs found.

    Attributes
    ----------
    passages : list of (str, mapping)
        Computers, and what a log of theirs holds that is new.
    silent : dict
        Why computers did not answer, by name.
    errors : dict
        The pieces that failed last, by computer and process; of those asked by name.
    """

    passages: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def messages(self, lines: int = 0) -> list[Message]:
        """Return all messages, by time.

        Parameters
        ----------
        lines : int
            How many of each log were asked for. Then those are left out that are older
            than where any log was cut off, so that none is missing between them.
        """
        logs = [_messages(*own) for own in self.passages]
        begins = [
            found[0].time
            for found, (_, passage) in zip(logs, self.passages, strict=True)
            if lines and len(passage["lines"]) >= lines and any(m.head for m in found)
        ]
        begin = max(begins, default="")
        together = (m for found in logs for m in found if m.time >= begin)
        return sorted(together, key=lambda message: message.time)


def question(wanted: Wanted, lines: int, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return what computers are asked.

    Parameters
    ----------
    wanted : Wanted
        Which messages.
    lines : int
        Last lines of a log that is looked into for the first time.
    names : sequence of str
        The processes; by default all.
    """
    # what is not wanted need not be known to them
    asked = {name: value for name, value in asdict(wanted).items() if value}
    return {"wanted": asked, "lines": lines, "names": list(names)}


def look_at(
    looks: Mapping[str, Look], asked: Mapping[str, Any], positions: Positions
) -> Seen:
    """Look into the logs of all computers, and note in `positions` where that ended.

    Parameters
    ----------
    looks : mapping
        How to ask each computer.
    asked : mapping
        Of `question`.
    positions : dict
        Where the look before ended; empty for the first one.
    """
    seen = Seen()

    def ask(computer: str) -> Mapping[str, Any] | OpenClusterError:
        try:
            known = positions.get(computer, {})
            return looks[computer]({**asked, "positions": known})
        except OpenClusterError as error:
            return error

    if not looks:
        return seen
    with ThreadPoolExecutor(min(AT_ONCE, len(looks))) as pool:
        answers = zip(looks, pool.map(ask, looks), strict=True)
        for computer, answer in answers:
            if isinstance(answer, OpenClusterError):
                seen.silent[computer] = str(answer)
                continue
            left = positions.setdefault(computer, {})
            for passage in answer["logs"]:
                left[passage["name"]] = tuple(passage["position"])
                seen.passages.append((computer, passage))
            seen.errors |= {
                f"{computer}/{name}": error
                for name, error in answer.get("errors", {}).items()
            }
    return seen


def computers(control: Control, host: str = "") -> dict[str, Look]:
    """Return how to look into the logs of each computer, by its name.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    host : str
        Only this one.

    Raises
    ------
    OpenClusterError
        When that is not in the cluster.
    """
    shops = control.factory("find", {"kind": "workshop"})
    found = [shop for shop in shops if host in ("", shop["host"], shop["name"])]
    if host and not found:
        known = ", ".join(sorted({shop["host"] for shop in shops})) or "none"
        raise OpenClusterError(
            f"no computer {host!r} is in the cluster; there: {known}"
        )

    def asker(shop: Mapping[str, Any]) -> Look:
        return lambda asked: dict(control.workshop(shop, "logs", asked, PATIENCE_S))

    return {shop["name"]: asker(shop) for shop in found}


def here(place: Place) -> dict[str, Look]:
    """Return how to look into the logs that lie on this computer."""

    def look(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        found = passages(
            place.logs,
            Wanted(**asked["wanted"]),
            asked["lines"],
            asked["positions"],
            asked["names"],
        )
        return {"logs": [passage.to_fields() for passage in found]}

    return {host_name(): look}


def of_type(control: Control, type: str) -> list[str]:
    """Return the names of the processes of a type.

    Raises
    ------
    OpenClusterError
        When there is none.
    """
    entries = control.factory("find", {"type": type})
    names = sorted({entry["name"] for entry in entries if entry["kind"] != "failure"})
    if not names:
        raise OpenClusterError(f"nobody of type {type!r} is in the cluster")
    return names


def moment(text: str) -> str:
    """Return a time as the logs write it, given one or how long ago it was.

    Raises
    ------
    ValueError
        When it is neither.
    """
    if not text:
        return ""
    ago = re.fullmatch(r"(\d{1,9})(s|min|h|d)", text)
    if ago:
        seconds = max(0.0, time.time() - int(ago[1]) * UNITS_S[ago[2]])
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    if re.fullmatch(
        r"\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,3})?)?)?)?Z?", text, re.ASCII
    ):
        return text
    raise ValueError(
        f"{text!r} is neither such as 10min, 2h, 3d nor a time such as 2026-11-30T02:00"
    )


def harmless(line: str) -> str:
    """Return a line without what terminals and pages would obey, and not too long.

    What cannot be seen becomes U+FFFD; colours and the like go without a trace.
    """
    cut = line[: 4 * MAX_LINE]
    clean = _UNSEEN.sub(lambda found: "" if len(found[0]) > 1 else "\ufffd", cut)
    if len(clean) > MAX_LINE or len(line) > len(cut):
        clean = f"{clean[:MAX_LINE]} … ({len(line)} characters)"
    # what is half a character cannot be encoded
    return clean.encode(errors="replace").decode()


def shown(lines: Sequence[str]) -> list[str]:
    """Return the lines of a message as they can be shown, not too many."""
    if len(lines) > MAX_MESSAGE:
        half = MAX_MESSAGE // 2
        left_out = f"    … ({len(lines) - 2 * half} lines)"
        lines = [*lines[:half], left_out, *lines[-half:]]
    return [harmless(line) for line in lines]


def newest(messages: Sequence[Message], count: int) -> list[Message]:
    """Return the last messages, with all of the same moment as the first of them.

    So that who goes on with those before that moment misses none.
    """
    if len(messages) <= count:
        return list(messages)
    first = messages[-count].time
    return [m for m in messages[-2 * count :] if m.time >= first]


def level_of(message: Message) -> str:
    """Return the level of a message; what was only printed counts as INFO."""
    return message.head.level if message.head else LEVELS[1]


def _messages(computer: str, passage: Mapping[str, Any]) -> list[Message]:
    found, now = [], ""
    groups = list(messages(passage["lines"]))
    heads = [head_of(group[0]) for group in groups]
    # what was printed before any message is as old as the first of these
    changed = str(passage.get("changed", ""))
    now = next((head.time for head in heads if head is not None), changed)
    for group, head in zip(groups, heads, strict=True):
        now = head.time if head is not None else now
        found.append(Message(computer, passage["name"], head, now, group))
    return found
