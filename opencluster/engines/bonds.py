"""Pieces that are tied to values: they refer to some, or their results are kept.

The dispatcher sees such a piece when its values are there, and no sooner. What belongs
to it besides is kept here. For use while holding the reactor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from opencluster.core.pieces import Piece
from opencluster.engines.base import Options, Outcome
from opencluster.engines.directory import Contact
from opencluster.engines.values import Recipe, Values, missing_in
from opencluster.references import DataRef


@dataclass(slots=True)
class Bond:
    """What ties a piece to values.

    Attributes
    ----------
    piece : Piece
        The piece.
    refs : tuple of DataRef
        The values that it refers to, held as long as it is not over.
    keep : bytes or None
        Under which identity its result is kept, if it is.
    recipe : Recipe or None
        How its result is made again, if it may be.
    makes : bytes or None
        The value that it makes again.
    is_parked : bool
        It is not with the dispatcher.
    """

    piece: Piece
    refs: tuple[DataRef, ...]
    keep: bytes | None = None
    recipe: Recipe | None = None
    makes: bytes | None = None
    is_parked: bool = True


class Bonds:
    """The pieces of one engine that are tied to values.

    Parameters
    ----------
    values : Values
        What is known of the values.
    dispatch : callable
        Hands a piece to the dispatcher.
    """

    def __init__(self, values: Values, dispatch: Callable[[Piece], None]) -> None:
        self._values = values
        self._dispatch = dispatch
        self._bonds: dict[int, Bond] = {}

    def tie(
        self,
        piece: Piece,
        refs: tuple[DataRef, ...],
        options: Options,
        data: tuple[bytes, Sequence[Any]],
    ) -> None:
        """Take in a piece of a user.

        Parameters
        ----------
        piece : Piece
            The piece.
        refs : tuple of DataRef
            What it refers to.
        options : Options
            How it is to be run.
        data : (bytes, sequence)
            The encoded piece.
        """
        keep = self._values.id_of(piece.id) if options.keep else None
        recipe = None
        if options.recompute:
            bare = tuple(ref.under(None) for ref in refs)
            again = dataclasses.replace(options, worker="", on_progress=None)
            recipe = Recipe(piece.type, *data, again, bare)
        self._add(Bond(piece, refs, keep, recipe))

    def tie_again(self, piece: Piece, id: bytes, recipe: Recipe) -> None:
        """Take in a piece that makes a value again."""
        refs = self._values.leased(recipe.inputs)
        self._add(Bond(piece, refs, id, makes=id))

    def resume(self, number: int) -> None:
        """Hand a piece to the dispatcher, as its values are there."""
        bond = self._bonds.get(number)
        if bond is not None and bond.is_parked:
            bond.is_parked = False
            bond.piece.needs = self._values.needs(bond.refs)
            self._dispatch(bond.piece)

    def ask_again(self, number: int) -> None:
        """Say once more what a piece needs, if it waits."""
        bond = self._bonds.get(number)
        if bond is not None and bond.is_parked:
            self._values.needed(number, bond.refs, bond.makes)

    def not_found(self, number: int, payload: bytes) -> None:
        """Take back a piece from the dispatcher whose worker did not get a value.

        Raises
        ------
        RemoteProtocolError
            When what the worker says of that is malformed.
        """
        bond = self._bonds[number]
        failure = missing_in(payload)
        bond.is_parked = True
        bond.piece.is_over = False
        self._values.not_found(number, bond.refs, failure, bond.makes)

    def extras(self, worker: str, numbers: Iterable[int]) -> dict[int, list[Any]]:
        """Return what a worker must know of pieces besides their rows."""
        extras = {}
        for number in numbers:
            bond = self._bonds.get(number)
            if bond is not None:
                sources = self._values.sources(worker, bond.refs)
                extras[number] = [bond.keep, sources]
        return extras

    def delivered(self, contact: Contact, number: int, outcome: Outcome) -> Outcome:
        """Take in the result of a piece, and return it as its user gets it.

        Raises
        ------
        RemoteProtocolError
            When what the worker says that it keeps is malformed.
        """
        bond = self._bonds[number]
        if bond.makes is not None:
            self._values.made(contact, bond.makes, outcome.payload)
        elif bond.keep is not None:
            payload = outcome.payload
            outcome.ref = self._values.kept(contact, bond.keep, payload, bond.recipe)
            outcome.payload = b""
        self.over(number, True)
        return outcome

    def over(self, number: int, is_done: bool) -> None:
        """Forget a piece."""
        bond = self._bonds.pop(number, None)
        if bond is not None:
            self._values.over(number, bond.refs, is_done)

    def parked(self, numbers: Iterable[int]) -> list[Piece]:
        """Return those of some pieces that are not with the dispatcher."""
        bonds = (self._bonds.get(number) for number in numbers)
        return [bond.piece for bond in bonds if bond is not None and bond.is_parked]

    def prioritise(self, numbers: Iterable[int], priority: int) -> None:
        """Give pieces another priority that are not with the dispatcher."""
        for piece in self.parked(numbers):
            piece.priority = priority

    def __contains__(self, number: int) -> bool:
        return number in self._bonds

    def __bool__(self) -> bool:
        return bool(self._bonds)

    def _add(self, bond: Bond) -> None:
        number = bond.piece.id
        self._bonds[number] = bond
        self._values.needed(number, bond.refs, bond.makes)
