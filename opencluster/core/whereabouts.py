"""Which values workers hold for a manager, and what is done when one is lost.

Rules that this module keeps:

1. A value is released where it is when nobody needs it: no reference of this process,
   no value that contains it, and nothing that could be made again from it alone.
2. How a value was made is remembered as long as the value, or anything that was made
   from it, could be made again.
3. A value is lost when the last worker that held it is lost or says that it does not
   have it. It is made again when somebody needs it, if that is possible: not in
   advance, no more than `MAX_REMAKES` times in a row, nor through more than `MAX_DEPTH`
   values that each need the one before.
4. A piece whose values are not all there waits; it goes on when they are, or ends when
   one of them cannot be had.
5. What only leaving workers hold is copied to one that stays, where there is room in
   memory, near by if it can be, and then released there: first what cannot be made
   again. Who does not take it is not asked for it again; after `MAX_MOVES` others, or
   when nobody is left to ask, whoever joins next is.
6. A worker with which contact was lost, and that comes back, still holds what it held,
   until it says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opencluster.core.values import (
    Copy,
    Effect,
    ForgetPiece,
    GiveUp,
    Is,
    Refer,
    ReferToThese,
    Release,
    Remake,
    Resume,
    TryAgain,
    Unsaved,
    Value,
)

__all__ = [
    "Copy",
    "Effect",
    "ForgetPiece",
    "GiveUp",
    "Refer",
    "ReferToThese",
    "Release",
    "Remake",
    "Resume",
    "TryAgain",
    "Unsaved",
    "Whereabouts",
]

MAX_REMAKES = 3
"""Times that a value is made again without having been of use to anybody."""
MAX_DEPTH = 100
"""Values, each made from the one before, that are made again for one piece."""
MAX_TRIES = 5
"""Times that it is tried to fetch a value of a piece from who should have it."""
RETRY_S = 0.5
"""Wait before the second try, twice as long before the third, and so on: by then it is
known whether a holder with which contact broke is lost."""
MAX_MOVES = 3
"""Workers that are asked to take a value from those that leave, and do not."""
MAX_TAKERS = 64
"""Workers among which values of those that leave are spread, more than `MAX_MOVES`."""
RELEASED = "it was released"
UNKNOWN = "this manager does not know of it"


class Whereabouts:
    """The values of one manager."""

    def __init__(self) -> None:
        self._values: dict[bytes, Value] = {}
        self._at: dict[str, set[bytes]] = {}
        self._bytes_at: dict[str, int] = {}
        self._was_at: dict[str, set[bytes]] = {}
        self._hosts: dict[str, str] = {}
        self._room: dict[str, int] = {}
        # bytes on their way there from workers that leave
        self._coming: dict[str, int] = {}
        # workers that may hold something, whether we know of it or not
        self._trusted: set[str] = set()
        self._leaving: set[str] = set()
        self._parked: dict[int, set[bytes]] = {}
        self._awaiting: dict[bytes, set[int]] = {}
        self._tries: dict[int, int] = {}

    # --- events: values ------------------------------------------------------

    def kept(
        self,
        id: bytes,
        worker: str,
        nbytes: int,
        inputs: Sequence[bytes] | None = None,
        contents: Sequence[bytes] = (),
    ) -> list[Effect]:
        """Note that a worker holds a value, and that a reference to it was made.

        Parameters
        ----------
        id : bytes
            Its identity.
        worker : str
            Who holds it.
        nbytes : int
            Its size.
        inputs : sequence of bytes, optional
            The values that it was made from, if it can be made again.
        contents : sequence of bytes
            The values to which it contains references.
        """
        value = self._values.get(id)
        if value is None:
            value = self._values[id] = Value(id, nbytes)
            if inputs is not None:
                self._remember_inputs(value, tuple(inputs))
        value.is_referred = True
        return self._arrived(value, worker, nbytes, contents)

    def made(
        self, id: bytes, worker: str, nbytes: int, contents: Sequence[bytes] = ()
    ) -> list[Effect]:
        """Note that a value that is known was made again, and is held by a worker."""
        value = self._values.get(id)
        if value is None:
            return [Release(worker, id)]
        return self._arrived(value, worker, nbytes, contents)

    def copied(self, id: bytes, worker: str) -> list[Effect]:
        """Note that another worker holds a value too."""
        value = self._values.get(id)
        if value is None or not value.is_needed:
            return [Release(worker, id)]
        if value.moves_to == worker:
            self._move(value, "")
        return self._arrived(value, worker, value.nbytes, value.contents)

    def not_copied(self, id: bytes, worker: str) -> list[Effect]:
        """Note that a worker that was to have a copy does not have it."""
        value = self._values.get(id)
        if value is None or value.moves_to != worker:
            return []
        self._move(value, "")
        value.refused.add(worker)
        return self._save([value])

    def refer(self, id: bytes, worker: str, nbytes: int) -> list[Effect]:
        """Note that a reference came, perhaps one that another manager made."""
        value = self._values.get(id)
        if value is not None:
            value.is_referred = True
            return []
        value = self._values[id] = Value(id, nbytes, stands=Is.HERE)
        self._hold(value, worker)
        return [Refer(worker, id), *self._save([value])]

    def unreferred(self, id: bytes) -> list[Effect]:
        """Note that the last reference to a value in this process is gone."""
        value = self._values.get(id)
        if value is None:
            return []
        value.is_referred = False
        return self._settle([value])

    def released(self, id: bytes) -> list[Effect]:
        """Let go of a value, although there are references to it."""
        value = self._values.get(id)
        if value is None or value.stands is not Is.HERE:
            return []
        value.stands, value.why = Is.LOST, RELEASED
        return [*self._release(value), *self._settle(self._contain(value, ()))]

    def remake_failed(self, id: bytes, why: str) -> list[Effect]:
        """Note that a value could not be made again, and will not be."""
        value = self._values.get(id)
        if value is None or value.stands is not Is.BEING_MADE:
            return []
        value.stands, value.why = Is.LOST, f"making it again failed: {why}"
        value.remakes = MAX_REMAKES
        return [*self._look_at_waiting(id), *self._settle([value])]

    # --- events: pieces ------------------------------------------------------

    def needed(
        self, piece: int, ids: Iterable[bytes], makes: bytes | None = None
    ) -> list[Effect]:
        """Find out whether the values of a piece are there.

        Exactly one of `Resume`, `TryAgain` and `GiveUp` follows for the piece, now or
        later, unless it is `over` before.

        Parameters
        ----------
        piece : int
            The piece.
        ids : iterable of bytes
            Its values.
        makes : bytes, optional
            The value that it makes again.
        """
        wanted = list(dict.fromkeys(ids))
        maker = None if makes is None else self._values.get(makes)
        return self._look_at(piece, wanted, maker.depth if maker is not None else 0)

    def not_found(
        self,
        piece: int,
        ids: Iterable[bytes],
        id: bytes,
        lost_at: Iterable[str],
        why: str,
        makes: bytes | None = None,
    ) -> list[Effect]:
        """Note that a worker could not fetch a value of a piece; see `needed`.

        Parameters
        ----------
        piece : int
            The piece, which comes back for this.
        ids : iterable of bytes
            All of its values.
        id : bytes
            The one that could not be fetched.
        lost_at : iterable of str
            Workers that said themselves that they do not have it.
        why : str
            What became of each attempt.
        makes : bytes, optional
            The value that the piece makes again.
        """
        value = self._values.get(id)
        if value is not None:
            for worker in lost_at:
                self._no_longer_at(value, worker)
            if not value.holders and value.stands is Is.HERE:
                value.stands, value.why = Is.LOST, why
        if value is not None and value.stands is Is.HERE:
            self._tries[piece] = self._tries.get(piece, 0) + 1
            tries = self._tries[piece]
            if tries < MAX_TRIES:
                return [
                    *self._settle(self._unpark(piece)),
                    TryAgain(piece, tries * RETRY_S),
                ]
            del self._tries[piece]
            return [GiveUp(piece, ((id, f"it cannot be fetched: {why}"),))]
        return self.needed(piece, ids, makes)

    def sent(self, worker: str, ids: Iterable[bytes]) -> None:
        """Note that a worker was sent a piece with values, and may have copies soon."""
        self._trusted.add(worker)
        for id in ids:
            value = self._values.get(id)
            if value is not None and worker not in value.holders:
                value.copies.add(worker)

    def over(
        self, piece: int, ids: Iterable[bytes] = (), is_done: bool = False
    ) -> list[Effect]:
        """Note that a piece with these values is over, whether it waits here or not."""
        self._tries.pop(piece, None)
        if is_done:
            for id in ids:
                if id in self._values:
                    self._values[id].remakes = 0
        return self._settle(self._unpark(piece))

    # --- events: workers -----------------------------------------------------

    def worker_joined(self, worker: str, host: str, room: int = 0) -> list[Effect]:
        """Note that a worker is there, perhaps again.

        Parameters
        ----------
        worker : str
            Who.
        host : str
            Its computer.
        room : int
            Bytes of values that it holds in memory, 0 if that is not known.
        """
        self._hosts[worker] = host
        self._room[worker] = room
        effects: list[Effect] = []
        for id in sorted(self._was_at.pop(worker, ())):
            value = self._values[id]
            value.absent.discard(worker)
            if value.is_needed and value.stands is not Is.BEING_MADE:
                self._hold(value, worker)
                value.stands, value.why = Is.HERE, ""
        for leaving in sorted(self._leaving):
            held = self._held_at(leaving)
            for value in held:
                if len(value.refused) >= MAX_MOVES:
                    value.refused.clear()
            effects += self._save(held)
        if worker in self._trusted:
            ids = tuple(sorted(self._at.get(worker, ())))
            effects.insert(0, ReferToThese(worker, ids))
        return effects

    def missing(self, worker: str, ids: Iterable[bytes]) -> None:
        """Note that a worker says that it does not hold values."""
        for id in ids:
            value = self._values.get(id)
            if value is not None:
                self._no_longer_at(value, worker)
                self._note_loss(value, "its worker does not have it any more")

    def worker_lost(
        self, worker: str, why: str, is_process_death: bool = True
    ) -> list[Effect]:
        """Note that a worker is gone, or that contact with it was lost."""
        self._leaving.discard(worker)
        self._hosts.pop(worker, None)
        self._room.pop(worker, None)
        if is_process_death:
            self._trusted.discard(worker)
            for id in self._was_at.pop(worker, ()):
                self._values[id].absent.discard(worker)
        for value in self._values.values():
            value.copies.discard(worker)
            value.refused.discard(worker)
        for value in self._held_at(worker):
            self._no_longer_at(value, worker)
            if not is_process_death:
                value.absent.add(worker)
                self._was_at.setdefault(worker, set()).add(value.id)
            self._note_loss(value, why)
        return self._redirect(worker)

    def worker_draining(self, worker: str) -> list[Effect]:
        """Note that a worker will leave, and have copied what only it holds."""
        if worker in self._leaving or worker not in self._hosts:
            return []
        self._leaving.add(worker)
        held = self._held_at(worker)
        return [*self._redirect(worker), *self._save(held)]

    # --- questions -----------------------------------------------------------

    def __contains__(self, id: bytes) -> bool:
        return id in self._values

    def holders(self, id: bytes) -> list[str]:
        """Return who holds a value, then who may have a copy."""
        value = self._values.get(id)
        if value is None:
            return []
        return [*value.holders, *sorted(value.copies - value.holders.keys())]

    def value(self, id: bytes) -> Value | None:
        """Return what is known of a value."""
        return self._values.get(id)

    def closure(self, ids: Iterable[bytes]) -> list[bytes]:
        """Return values, and all that they contain, each once."""
        found = dict.fromkeys(ids)
        queue = list(found)
        while queue:
            value = self._values.get(queue.pop())
            for inner in value.contents if value is not None else ():
                if inner not in found:
                    found[inner] = None
                    queue.append(inner)
        return list(found)

    def why_lost(self, id: bytes) -> str | None:
        """Return why a value cannot be fetched now, or ``None`` if it can."""
        value = self._values.get(id)
        if value is None:
            return UNKNOWN
        return None if value.stands is Is.HERE else value.why or value.stands.value

    def nbytes_at(self, worker: str) -> int:
        """Return the size of the values that a worker holds for this manager."""
        return self._bytes_at.get(worker, 0)

    def is_leaving(self, worker: str) -> bool:
        """Whether a worker said that it will leave."""
        return worker in self._leaving

    def unsaved(self, worker: str) -> Unsaved:
        """Return what of a worker that leaves is with nobody who stays."""
        values = nbytes = moving = 0
        for value in self._held_at(worker):
            if value.is_needed and value.holders.keys() <= self._leaving:
                values += 1
                nbytes += value.nbytes
                moving += bool(value.moves_to)
        return Unsaved(values, nbytes, moving)

    def __len__(self) -> int:
        return len(self._values)

    def check_invariants(self) -> None:
        """Fail when a rule of this module is broken."""
        at: dict[str, set[bytes]] = {}
        users: dict[bytes, int] = {}
        dependents: dict[bytes, int] = {}
        coming: dict[str, int] = {}
        for id, value in self._values.items():
            assert value.id == id
            is_wanted = value.is_needed or self._awaiting.get(id)
            can_be_made = value.inputs is not None
            assert is_wanted or (can_be_made and value.dependents)
            assert not value.holders or is_wanted
            assert (value.stands is Is.HERE) <= bool(value.holders)
            assert not value.holders or value.stands is Is.HERE
            assert value.moves_to not in self._leaving
            assert not value.moves_to or value.moves_to in self._hosts
            self._check_that_it_moves(value)
            coming[value.moves_to] = coming.get(value.moves_to, 0) + value.nbytes
            for worker in value.holders:
                at.setdefault(worker, set()).add(id)
            for inner in value.contents:
                users[inner] = users.get(inner, 0) + 1
            for input in value.inputs or ():
                if self._can_be_made(input):
                    dependents[input] = dependents.get(input, 0) + 1
                else:
                    users[input] = users.get(input, 0) + 1
            for worker in value.absent:
                assert id in self._was_at[worker]
        coming.pop("", None)
        assert coming == {to: nbytes for to, nbytes in self._coming.items() if nbytes}
        assert at == {worker: ids for worker, ids in self._at.items() if ids}
        for worker, ids in self._at.items():
            nbytes = sum(self._values[id].nbytes for id in ids)
            assert self._bytes_at.get(worker, 0) == nbytes
        for id, value in self._values.items():
            assert value.users == users.get(id, 0)
            assert value.dependents == dependents.get(id, 0)
        for piece, ids in self._parked.items():
            assert ids
            for id in ids:
                assert self._values[id].stands is Is.BEING_MADE
                assert piece in self._awaiting[id]
        for id, pieces in self._awaiting.items():
            assert pieces and all(id in self._parked[piece] for piece in pieces)

    def _check_that_it_moves(self, value: Value) -> None:
        """Fail when only leaving workers hold a value, and others could take it."""
        is_held = value.is_needed and bool(value.holders)
        if is_held and value.holders.keys() <= self._leaving and not value.moves_to:
            able = self._hosts.keys() - self._leaving - value.refused
            assert not able or len(value.refused) >= MAX_MOVES

    # --- inside: where -------------------------------------------------------

    def _arrived(
        self, value: Value, worker: str, nbytes: int, contents: Sequence[bytes]
    ) -> list[Effect]:
        if not value.holders:
            self._move(value, "")
            value.nbytes = nbytes
        self._hold(value, worker)
        before = self._contain(value, tuple(contents))
        value.stands, value.why, value.depth = Is.HERE, "", 0
        return [
            *self._save([value]),
            *self._look_at_waiting(value.id),
            *self._settle([*before, value]),
        ]

    def _hold(self, value: Value, worker: str) -> None:
        self._trusted.add(worker)
        value.copies.discard(worker)
        if worker in value.absent:
            value.absent.discard(worker)
            self._was_at[worker].discard(value.id)
        if worker not in value.holders:
            value.holders[worker] = None
            self._at.setdefault(worker, set()).add(value.id)
            self._bytes_at[worker] = self._bytes_at.get(worker, 0) + value.nbytes

    def _no_longer_at(self, value: Value, worker: str) -> None:
        value.copies.discard(worker)
        if worker in value.holders:
            del value.holders[worker]
            self._bytes_at[worker] -= value.nbytes
            self._at[worker].discard(value.id)
            if not self._at[worker]:
                del self._at[worker], self._bytes_at[worker]

    def _note_loss(self, value: Value, why: str) -> None:
        if not value.holders and value.stands is Is.HERE:
            value.stands, value.why = Is.LOST, why

    def _save(self, values: list[Value]) -> list[Effect]:
        """Let no worker that leaves be the only one that holds one of these values.

        What cannot be made again goes first, as time may run out.
        """
        if not self._leaving:
            return []
        effects: list[Effect] = []
        takers: dict[str, list[str]] = {}
        for value in sorted(values, key=lambda value: value.inputs is not None):
            leaving = [worker for worker in value.holders if worker in self._leaving]
            if not leaving or not value.is_needed or value.moves_to:
                continue
            if len(leaving) < len(value.holders):
                for worker in leaving:
                    self._no_longer_at(value, worker)
                effects += [Release(worker, value.id) for worker in leaving]
                continue
            here = self._hosts.get(leaving[0], "")
            if here not in takers:
                takers[here] = self._takers(here)
            to = self._taker_of(value, takers[here], here)
            if to is not None:
                self._move(value, to)
                effects.append(Copy(value.id, value.nbytes, tuple(leaving), to))
        return effects

    def _takers(self, here: str) -> list[str]:
        """Return who could take values from a computer, the best of them if many."""

        def cost(worker: str) -> tuple[bool, int, str]:
            return self._hosts[worker] != here, self._load(worker), worker

        others = [worker for worker in self._hosts if worker not in self._leaving]
        return sorted(others, key=cost)[:MAX_TAKERS]

    def _taker_of(self, value: Value, takers: list[str], here: str) -> str | None:
        """Return who should take a value that lies on a computer, if anybody can."""
        if len(value.refused) >= MAX_MOVES:
            return None

        def cost(worker: str) -> tuple[bool, bool, int, str]:
            load, room = self._load(worker), self._room[worker]
            is_full = bool(room) and load + value.nbytes > room
            return is_full, self._hosts[worker] != here, load, worker

        able = (worker for worker in takers if worker not in value.refused)
        return min(able, key=cost, default=None)

    def _load(self, worker: str) -> int:
        return self.nbytes_at(worker) + self._coming.get(worker, 0)

    def _move(self, value: Value, to: str) -> None:
        """Let a value be on its way to a worker, or to nobody."""
        if value.moves_to:
            self._coming[value.moves_to] -= value.nbytes
        value.moves_to = to
        if to:
            self._coming[to] = self._coming.get(to, 0) + value.nbytes

    def _redirect(self, worker: str) -> list[Effect]:
        """Have taken by others what is on its way to a worker that will not stay."""
        moving = [v for v in self._values.values() if v.moves_to == worker]
        for value in moving:
            self._move(value, "")
        self._coming.pop(worker, None)
        return self._save(moving)

    def _held_at(self, worker: str) -> list[Value]:
        return [self._values[id] for id in sorted(self._at.get(worker, ()))]

    def _release(self, value: Value) -> list[Effect]:
        """Have a value let go wherever it is."""
        workers = [*value.holders, *sorted(value.copies)]
        for worker in list(value.holders):
            self._no_longer_at(value, worker)
        value.copies.clear()
        for worker in value.absent:
            self._was_at[worker].discard(value.id)
        value.absent.clear()
        self._move(value, "")
        return [Release(worker, value.id) for worker in workers]

    # --- inside: who needs what ----------------------------------------------

    def _can_be_made(self, id: bytes) -> bool:
        value = self._values.get(id)
        return value is not None and value.inputs is not None

    def _remember_inputs(self, value: Value, inputs: tuple[bytes, ...]) -> None:
        value.inputs = tuple(id for id in dict.fromkeys(inputs) if id in self._values)
        for id in value.inputs:
            if self._can_be_made(id):
                self._values[id].dependents += 1
            else:
                self._values[id].users += 1

    def _contain(self, value: Value, contents: tuple[bytes, ...]) -> list[Value]:
        """Note what a value contains now, and return what it contained before."""
        before = [self._values[id] for id in value.contents]
        value.contents = tuple(id for id in contents if id in self._values)
        for id in value.contents:
            self._values[id].users += 1
        for inner in before:
            inner.users -= 1
        return before

    def _settle(self, values: Iterable[Value]) -> list[Effect]:
        """Let go of data, and of values, that nobody needs, and of what follows."""
        effects: list[Effect] = []
        queue = list(values)
        while queue:
            value = queue.pop()
            if value.is_needed or self._values.get(value.id) is not value:
                continue
            if self._awaiting.get(value.id):
                continue
            if value.stands is Is.HERE:
                value.stands, value.why = Is.LOST, RELEASED
            effects += self._release(value)
            queue += self._contain(value, ())
            if value.inputs is not None and value.dependents:
                continue
            del self._values[value.id]
            if value.inputs is not None:
                effects.append(ForgetPiece(value.id))
                queue += self._forget_inputs(value)
        return effects

    def _forget_inputs(self, value: Value) -> list[Value]:
        inputs = [self._values[id] for id in value.inputs or ()]
        for input in inputs:
            if input.inputs is not None:
                input.dependents -= 1
            else:
                input.users -= 1
        return inputs

    # --- inside: pieces ------------------------------------------------------

    def _look_at(self, piece: int, ids: list[bytes], depth: int = 0) -> list[Effect]:
        """Let a piece go on, wait or end."""
        before = self._unpark(piece)
        reasons: list[tuple[bytes, str]] = []
        absent: list[Value] = []
        for id in ids:
            value = self._values.get(id)
            if value is None:
                reasons.append((id, UNKNOWN))
            elif value.stands is Is.LOST and not self._may_be_made(value, depth):
                reasons.append((id, value.why))
            elif value.stands is not Is.HERE:
                absent.append(value)
        if reasons:
            self._tries.pop(piece, None)
            return [GiveUp(piece, tuple(reasons)), *self._settle(before)]
        if not absent:
            return [Resume(piece), *self._settle(before)]
        effects: list[Effect] = []
        for value in absent:
            self._parked.setdefault(piece, set()).add(value.id)
            self._awaiting.setdefault(value.id, set()).add(piece)
            if value.stands is Is.LOST:
                value.stands = Is.BEING_MADE
                value.remakes += 1
                value.depth = depth + 1
                effects.append(Remake(value.id))
        return [*effects, *self._settle(before)]

    def _may_be_made(self, value: Value, depth: int) -> bool:
        can = value.inputs is not None
        return can and value.remakes < MAX_REMAKES and depth < MAX_DEPTH

    def _look_at_waiting(self, id: bytes) -> list[Effect]:
        """Look again at the pieces that wait for a value."""
        effects: list[Effect] = []
        for piece in sorted(self._awaiting.get(id, ())):
            ids = sorted(self._parked[piece])
            effects += self._look_at(piece, ids)
        return effects

    def _unpark(self, piece: int) -> list[Value]:
        """Let a piece wait for nothing, and return what it waited for."""
        ids = sorted(self._parked.pop(piece, ()))
        for id in ids:
            pieces = self._awaiting[id]
            pieces.discard(piece)
            if not pieces:
                del self._awaiting[id]
        return [self._values[id] for id in ids]
