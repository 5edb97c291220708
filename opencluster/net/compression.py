"""Compressing chunks: which ways there are here, and when one is taken.

The packages that do the work are imported when they are needed, if they are there. A
chunk tells how large it is without them, and that bounds what may come out.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

from opencluster.core.chunks import MAX_CHUNK_BYTES
from opencluster.core.payoff import AS_IT_IS, Payoff
from opencluster.errors import OpenClusterError, RemoteProtocolError
from opencluster.net.transport import Peer

LZ4, ZSTD = 1, 2
"""Codes of how a chunk is compressed; as bits they say what a peer understands."""
NAMES = {"lz4": LZ4, "zstd": ZSTD}
_PACKAGES = {LZ4: "lz4", ZSTD: "zstandard"}
LEAST_BYTES = 1 << 16
"""Smaller pieces of memory are not worth the trouble."""
WORTH_IT = 0.95
"""What is not smaller than this leaves as it is."""
ZSTD_LEVEL = 1
PEERS_KEPT = 256
"""Of so many peers it is remembered what they understand, and how fast they are."""


class _Codec(Protocol):
    def compress(self, data: memoryview) -> bytes:
        """Return the data in a smaller form, if there is one."""

    def decompress(self, data: memoryview, nbytes: int) -> bytes:
        """Return the data, no more of them than they should be."""


class _Lz4:
    def __init__(self) -> None:
        block: Any = importlib.import_module("lz4.block")
        self._block = block

    def compress(self, data: memoryview) -> bytes:
        compressed: bytes = self._block.compress(data, store_size=False)
        return compressed

    def decompress(self, data: memoryview, nbytes: int) -> bytes:
        came: bytes = self._block.decompress(data, uncompressed_size=nbytes)
        return came


class _Zstd:
    def __init__(self) -> None:
        module: Any = importlib.import_module("zstandard")
        self._module = module
        self._compressor = module.ZstdCompressor(level=ZSTD_LEVEL)
        self._decompressor = module.ZstdDecompressor(max_window_size=MAX_CHUNK_BYTES)

    def compress(self, data: memoryview) -> bytes:
        compressed: bytes = self._compressor.compress(data)
        return compressed

    def decompress(self, data: memoryview, nbytes: int) -> bytes:
        # what a frame says of itself would be believed
        if self._module.get_frame_parameters(data).content_size != nbytes:
            raise ValueError("it says that it is of another size")
        came: bytes = self._decompressor.decompress(data)
        return came


_CODECS: dict[int, Callable[[], _Codec]] = {LZ4: _Lz4, ZSTD: _Zstd}


@cache
def installed() -> int:
    """Return what this computer has packages for, as bits."""
    return sum(code for code, name in _PACKAGES.items() if find_spec(name) is not None)


@dataclass(slots=True, eq=False)
class _Line:
    """What is known of the way to a peer."""

    payoff: Payoff
    understood: int = 0


class Compression:
    """Compresses what leaves, and the reverse.

    Parameters
    ----------
    setting : str
        ``none``, ``lz4``, ``zstd`` or ``auto``.

    Raises
    ------
    OpenClusterError
        When the package is missing that the setting names.
    """

    def __init__(self, setting: str) -> None:
        self._is_on = setting != "none"
        self._chosen = NAMES.get(setting, 0)
        if self._chosen & ~self.understood:
            raise OpenClusterError(
                f"[network] compression = {setting} needs the package "
                f"{_PACKAGES[self._chosen]}: pip install 'opencluster[compression]', "
                "or choose auto or none"
            )
        self._codecs: dict[int, _Codec] = {}
        self._lines: dict[Peer, _Line] = {}

    @property
    def understood(self) -> int:
        """What can be read here, as bits."""
        return installed() if self._is_on else 0

    def begin(self, peer: Peer) -> None:
        """Note that something begins to leave to a peer to which nothing did."""
        if self.understood:
            self._line(peer).payoff.begin(time.monotonic())

    def taken(self, peer: Peer, nbytes: int, understood: int) -> None:
        """Note that a peer took so much, and what it can read."""
        if self.understood:
            line = self._line(peer)
            line.understood = understood & self.understood
            if not self._chosen:
                line.payoff.taken(time.monotonic(), nbytes)

    def packed(self, peer: Peer, data: memoryview) -> tuple[int, bytes | memoryview]:
        """Return how a piece of a chunk leaves: a code, and the data in that form."""
        line = self._lines.get(peer)
        if line is None or len(data) < LEAST_BYTES:
            return AS_IT_IS, data
        if self._chosen:
            return self._in_form(line.understood & self._chosen, data)
        payoff = line.payoff
        if payoff.wants_trial:
            self._try(payoff, line.understood, data)
        payoff.sent(len(data))
        return self._in_form(payoff.best() & line.understood, data)

    def unpacked(self, code: int, data: memoryview, nbytes: int) -> bytes:
        """Return data that came in another form.

        Raises
        ------
        RemoteProtocolError
            When that form is not known here, or the data are not of that form and size.
        """
        if code not in _CODECS or not code & self.understood:
            raise RemoteProtocolError(f"a chunk in an unknown form, {code}")
        try:
            came = self._codec(code).decompress(data, nbytes)
        except MemoryError:
            raise
        except Exception as error:
            # each package has errors of its own
            raise RemoteProtocolError(f"a chunk is damaged: {error}") from None
        if len(came) != nbytes:
            raise RemoteProtocolError(f"a chunk of {len(came)} bytes, not {nbytes}")
        return came

    # --- inside --------------------------------------------------------------

    def _in_form(self, code: int, data: memoryview) -> tuple[int, bytes | memoryview]:
        if not code:
            return AS_IT_IS, data
        compressed = self._codec(code).compress(data)
        if len(compressed) > WORTH_IT * len(data):
            return AS_IT_IS, data
        return code, compressed

    def _try(self, payoff: Payoff, usable: int, data: memoryview) -> None:
        for code in _bits(usable):
            codec = self._codec(code)
            began = time.perf_counter()
            compressed = codec.compress(data)
            seconds = time.perf_counter() - began
            payoff.tried(code, len(data), len(compressed), seconds)

    def _codec(self, code: int) -> _Codec:
        codec = self._codecs.get(code)
        if codec is None:
            codec = self._codecs[code] = _CODECS[code]()
        return codec

    def _line(self, peer: Peer) -> _Line:
        line = self._lines.pop(peer, None)
        if line is None:
            line = _Line(Payoff())
            if len(self._lines) >= PEERS_KEPT:
                del self._lines[next(iter(self._lines))]
        self._lines[peer] = line
        return line


def _bits(codes: int) -> Iterable[int]:
    return (code for code in _CODECS if code & codes)
