"""How Decimal, Fraction and UUID travel.

Owns the codes 16 to 18, in the manner of `types`; sizes are bounded where building the
value could cost more than reading its bytes.

====  ========  =======================================
code  type      payload
====  ========  =======================================
16    Decimal   text
17    Fraction  array: numerator, denominator
18    UUID      16 bytes
====  ========  =======================================

Must be imported only when such a value is met: few processes meet one, and the modules
of these types take long to import.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

from opencluster.wire.registry import add_type, cannot_send, refuse
from opencluster.wire.types import take, take_one

MAX_FRACTION_BITS = 8 * 16 * 1024
"""Size of numerator and denominator. Reducing a fraction takes time in the square of
it: about 10 ms at this size."""

_DECIMAL = re.compile(
    r"-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d{1,20})?|Infinity|s?NaN\d*)", re.ASCII
)


def _unpack_decimal(payload: Any) -> Decimal:
    if not _DECIMAL.fullmatch(take_one(payload, str)):
        refuse("not a decimal number")
    return Decimal(payload)


def _pack_fraction(value: Fraction) -> list[int]:
    if _bits(value.numerator, value.denominator) > MAX_FRACTION_BITS:
        raise cannot_send(
            f"a Fraction of more than {MAX_FRACTION_BITS} bits",
            "send its numerator and denominator",
        )
    return [value.numerator, value.denominator]


def _unpack_fraction(payload: Any) -> Fraction:
    numerator, denominator = take(payload, int, int)
    if denominator <= 0 or _bits(numerator, denominator) > MAX_FRACTION_BITS:
        refuse("a fraction without a positive denominator, or too large")
    return Fraction(numerator, denominator)


def _bits(*numbers: int) -> int:
    return max(number.bit_length() for number in numbers)


def _uuid_bytes(value: UUID) -> bytes:
    return value.bytes


def _unpack_uuid(payload: Any) -> UUID:
    return UUID(bytes=take_one(payload, bytes))


add_type(16, (Decimal,), str, _unpack_decimal)
add_type(17, (Fraction,), _pack_fraction, _unpack_fraction)
add_type(18, (UUID,), _uuid_bytes, _unpack_uuid)
