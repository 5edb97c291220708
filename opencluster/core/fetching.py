"""Fetching values from those who hold them: what is asked of whom, and in what parts.

Rules that this module keeps:

1. A value that is wanted ends in exactly one `Arrived` or `Failed`, however many want
   it: there is one fetch of it at a time.
2. Sources are tried in the order given. One that lost the value, or is lost itself, is
   not asked for it again; what it had sent of it counts for nothing.
3. A value from another computer that is larger than `PART_BYTES` comes in parts, each
   on request, so that neither side needs memory for it twice and nothing waits behind
   it for long. On the same computer it comes at once: there its memory is shared.
4. No more than a window of bytes is under way from one source; the rest waits in order.
5. A source that was not reached within `CONNECT_S` is lost. One that was reached may
   take its time to answer: it says so itself when it does not have the value.
6. Answers to questions that were not asked, or are of no interest any more, change
   nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

PART_BYTES = 4 << 20
"""Bytes of one part: some tens of milliseconds on a line of 1 Gbit/s."""
WINDOW_BYTES = 16 << 20
"""Bytes under way from a source on another computer."""
NEAR_WINDOW_BYTES = 256 << 20
"""Bytes under way from a source on the same computer: they take shared memory there."""
CONNECT_S = 5.0
"""How long a source may take to be reached."""
MAX_PARTS = 4096
"""Buffers of one value, its data included."""
MAX_VALUE_BYTES = 1 << 50
"""More than any value has."""
EVERYTHING = MAX_VALUE_BYTES
"""As a limit of how much to send at once: no limit."""
NOT_THERE = "it does not have it any more"
"""What is told of a source that says so itself."""
NOT_REACHED = "it was not reached"
"""What is told of one to which no connection came about in time."""
NOT_ASKED = "it sent what was not asked for"


class Source(NamedTuple):
    """Somebody who holds a value.

    Attributes
    ----------
    name : str
        Who.
    is_near : bool
        It is on the same computer.
    """

    name: str
    is_near: bool


# --- effects ----------------------------------------------------------------
# Tuples, which every worker makes faster: none is equal to one of another kind.


class AskValue(NamedTuple):
    """Ask for a value: all of it if it is no larger than `most`, else its sizes."""

    source: str
    number: int
    id: bytes
    most: int


class AskPart(NamedTuple):
    """Ask for a range of one buffer of a value."""

    source: str
    number: int
    id: bytes
    part: int
    offset: int
    nbytes: int


class Allocate(NamedTuple):
    """Take memory for buffers of these sizes, to be filled by `Fill`."""

    id: bytes
    sizes: tuple[int, ...]


class Fill(NamedTuple):
    """Put the chunk that just came where it belongs."""

    id: bytes
    part: int
    offset: int


class Arrived(NamedTuple):
    """A value is here: as it just came, or filled in the memory taken for it."""

    id: bytes
    is_filled: bool


class Failed(NamedTuple):
    """A value cannot be had; with what became of each source that was tried."""

    id: bytes
    reasons: tuple[tuple[str, str], ...]


Effect = AskValue | AskPart | Allocate | Fill | Arrived | Failed


@dataclass(slots=True, eq=False)
class _Fetch:
    id: bytes
    nbytes: int
    sources: deque[Source]
    source: Source | None = None
    reasons: list[tuple[str, str]] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)
    sizes: tuple[int, ...] = ()
    missing: int = 0


@dataclass(slots=True, eq=False)
class _Question:
    fetch: _Fetch
    source: str
    weight: int
    part: int = -1
    offset: int = 0
    nbytes: int = 0


@dataclass(slots=True, eq=False)
class _Rest:
    """What is still to be asked of a value that comes in parts."""

    fetch: _Fetch
    source: str
    part: int = 0
    offset: int = 0

    @property
    def weight(self) -> int:
        """Size of the next part."""
        return min(PART_BYTES, self.fetch.sizes[self.part] - self.offset)

    def take(self) -> _Question:
        """Take out the next part."""
        nbytes = self.weight
        part, offset = self.part, self.offset
        self.offset += nbytes
        self.skip_what_is_over()
        return _Question(self.fetch, self.source, nbytes, part, offset, nbytes)

    def skip_what_is_over(self) -> None:
        """Go on to the next buffer that has something left."""
        sizes = self.fetch.sizes
        while self.part < len(sizes) and self.offset >= sizes[self.part]:
            self.part += 1
            self.offset = 0

    @property
    def is_over(self) -> bool:
        """Whether all was asked."""
        return self.part >= len(self.fetch.sizes)


@dataclass(slots=True, eq=False)
class _Line:
    """What goes on between here and one source."""

    source: Source
    is_connected: bool = False
    asked_at: float = 0.0
    under_way: int = 0
    questions: dict[int, _Question] = field(default_factory=dict)
    waiting: deque[_Question | _Rest] = field(default_factory=deque)


class Fetching:
    """All values that are being fetched by one process."""

    def __init__(self) -> None:
        self._fetches: dict[bytes, _Fetch] = {}
        self._lines: dict[str, _Line] = {}
        self._number = 0

    # --- events --------------------------------------------------------------

    def want(
        self, now: float, id: bytes, nbytes: int, sources: Iterable[Source]
    ) -> list[Effect]:
        """Begin to fetch a value, unless that is under way.

        Parameters
        ----------
        now : float
            The time, in seconds.
        id : bytes
            The value's identity.
        nbytes : int
            Its size, as far as is known.
        sources : iterable of Source
            Who may have it; the first is asked first.
        """
        fetch = self._fetches.get(id)
        if fetch is not None:
            known = fetch.tried | {source.name for source in fetch.sources}
            fetch.sources.extend(s for s in sources if s.name not in known)
            return []
        fetch = self._fetches[id] = _Fetch(id, nbytes, deque(sources))
        return self._next_source(now, fetch)

    def forget(self, now: float, id: bytes) -> list[Effect]:
        """Fetch a value no longer."""
        fetch = self._fetches.pop(id, None)
        if fetch is None:
            return []
        return self._take_back(now, fetch)

    def value_came(
        self, now: float, source: str, number: int, sizes: Sequence[int], is_whole: bool
    ) -> list[Effect]:
        """Take in what a source says of a value: all of it, or how large it is.

        Parameters
        ----------
        now : float
            The time, in seconds.
        source : str
            Who says it.
        number : int
            The question that it answers.
        sizes : sequence of int
            Bytes of the value's data and of each of its buffers.
        is_whole : bool
            It came with all of it.
        """
        question = self._answered(source, number)
        if question is None:
            return self._go_on(now, source)
        fetch = question.fetch
        if question.part >= 0:
            return self._give_up_on(now, fetch, NOT_ASKED)
        if is_whole:
            del self._fetches[fetch.id]
            return [Arrived(fetch.id, False), *self._go_on(now, source)]
        if len(sizes) > MAX_PARTS or sum(sizes) > MAX_VALUE_BYTES or not sum(sizes):
            return self._give_up_on(now, fetch, "it sent what is no value")
        fetch.sizes = tuple(sizes)
        fetch.missing = sum(sizes)
        rest = _Rest(fetch, source)
        rest.skip_what_is_over()
        self._lines[source].waiting.append(rest)
        return [Allocate(fetch.id, fetch.sizes), *self._go_on(now, source)]

    def chunk_came(
        self, now: float, source: str, number: int, nbytes: int
    ) -> list[Effect]:
        """Take in a part of a value."""
        question = self._answered(source, number)
        if question is None:
            return self._go_on(now, source)
        fetch = question.fetch
        if question.part < 0 or nbytes != question.nbytes:
            return self._give_up_on(now, fetch, NOT_ASKED)
        effects: list[Effect] = [Fill(fetch.id, question.part, question.offset)]
        fetch.missing -= nbytes
        if not fetch.missing:
            del self._fetches[fetch.id]
            effects.append(Arrived(fetch.id, True))
        return [*effects, *self._go_on(now, source)]

    def value_lost(self, now: float, source: str, number: int) -> list[Effect]:
        """Note that a source does not have what it was asked for."""
        question = self._answered(source, number)
        if question is None:
            return self._go_on(now, source)
        return self._give_up_on(now, question.fetch, NOT_THERE)

    def source_connected(self, source: str) -> None:
        """Note that a source was reached."""
        line = self._lines.get(source)
        if line is not None:
            line.is_connected = True

    def source_lost(self, now: float, source: str, why: str) -> list[Effect]:
        """Note that a source is gone, or was not reached."""
        line = self._lines.pop(source, None)
        if line is None:
            return []
        asked = [*line.questions.values(), *line.waiting]
        effects: list[Effect] = []
        for fetch in {question.fetch.id: question.fetch for question in asked}.values():
            effects += self._give_up_on(now, fetch, why)
        return effects

    def tick(self, now: float) -> list[Effect]:
        """Give up those that were not reached in time."""
        late = [
            name
            for name, line in self._lines.items()
            if not line.is_connected and now - line.asked_at >= CONNECT_S
        ]
        effects: list[Effect] = []
        for name in late:
            effects += self.source_lost(now, name, NOT_REACHED)
        return effects

    # --- questions -----------------------------------------------------------

    def __contains__(self, id: bytes) -> bool:
        return id in self._fetches

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being fetched."""
        return not self._fetches

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        for id, fetch in self._fetches.items():
            assert fetch.id == id and fetch.source is not None
            assert fetch.source.name in fetch.tried
            line = self._lines[fetch.source.name]
            asked = [*line.questions.values(), *line.waiting]
            own = [question for question in asked if question.fetch is fetch]
            assert own
            if fetch.sizes:
                rest = sum(_left(q) for q in own if isinstance(q, _Rest))
                under_way = sum(q.nbytes for q in own if isinstance(q, _Question))
                assert rest + under_way == fetch.missing > 0
        for name, line in self._lines.items():
            assert line.source.name == name
            assert line.questions or line.waiting
            assert line.under_way == sum(q.weight for q in line.questions.values())
            assert line.under_way <= _window(line.source) or len(line.questions) == 1
            assert not line.waiting or line.questions
            for question in [*line.questions.values(), *line.waiting]:
                assert self._fetches.get(question.fetch.id) is question.fetch
                assert question.source == name

    # --- inside --------------------------------------------------------------

    def _next_source(self, now: float, fetch: _Fetch) -> list[Effect]:
        """Ask the next source for a value, or give it up."""
        fetch.sizes = ()
        fetch.missing = 0
        while fetch.sources:
            source = fetch.sources.popleft()
            if source.name in fetch.tried:
                continue
            fetch.tried.add(source.name)
            fetch.source = source
            line = self._lines.get(source.name)
            if line is None:
                line = self._lines[source.name] = _Line(source, asked_at=now)
            weight = fetch.nbytes if source.is_near else min(fetch.nbytes, PART_BYTES)
            line.waiting.append(_Question(fetch, source.name, weight))
            return self._go_on(now, source.name)
        del self._fetches[fetch.id]
        return [Failed(fetch.id, tuple(fetch.reasons))]

    def _give_up_on(self, now: float, fetch: _Fetch, why: str) -> list[Effect]:
        """Try the next source for a value, as this one is of no use."""
        assert fetch.source is not None
        fetch.reasons.append((fetch.source.name, why))
        freed = self._take_back(now, fetch)
        return [*freed, *self._next_source(now, fetch)]

    def _take_back(self, now: float, fetch: _Fetch) -> list[Effect]:
        """Have no more questions about a value."""
        assert fetch.source is not None
        line = self._lines.get(fetch.source.name)
        if line is None:
            return []
        line.waiting = deque(q for q in line.waiting if q.fetch is not fetch)
        for number, question in list(line.questions.items()):
            if question.fetch is fetch:
                del line.questions[number]
                line.under_way -= question.weight
        return self._go_on(now, fetch.source.name)

    def _answered(self, source: str, number: int) -> _Question | None:
        line = self._lines.get(source)
        question = line.questions.pop(number, None) if line is not None else None
        if line is not None and question is not None:
            line.is_connected = True
            line.under_way -= question.weight
        return question

    def _go_on(self, now: float, source: str) -> list[Effect]:
        """Ask a source as much as its window allows."""
        line = self._lines.get(source)
        if line is None:
            return []
        effects: list[Effect] = []
        while line.waiting:
            question = line.waiting[0]
            if line.questions and (
                line.under_way + question.weight > _window(line.source)
            ):
                break
            if isinstance(question, _Rest):
                rest, question = question, question.take()
                if rest.is_over:
                    line.waiting.popleft()
            else:
                line.waiting.popleft()
            self._number += 1
            line.questions[self._number] = question
            line.under_way += question.weight
            effects.append(self._asking(line, question))
        if not line.questions:
            del self._lines[source]
        return effects

    def _asking(self, line: _Line, question: _Question) -> AskValue | AskPart:
        id, number = question.fetch.id, self._number
        if question.part < 0:
            most = EVERYTHING if line.source.is_near else PART_BYTES
            return AskValue(question.source, number, id, most)
        part, offset, nbytes = question.part, question.offset, question.nbytes
        return AskPart(question.source, number, id, part, offset, nbytes)


def _left(rest: _Rest) -> int:
    return sum(rest.fetch.sizes[rest.part :]) - rest.offset


def _window(source: Source) -> int:
    return NEAR_WINDOW_BYTES if source.is_near else WINDOW_BYTES
