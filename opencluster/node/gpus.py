"""The GPUs of this computer: which there are, which we may use, who has which.

Owns the reading of NVML, the meaning of ``CUDA_VISIBLE_DEVICES`` and the table of
leases. Must not decide who gets a GPU. Without the NVIDIA driver or its Python library
there are simply no GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

log = logging.getLogger(__name__)

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_SHORTEST_PREFIX = "GPU-"


class NvmlLibrary(Protocol):
    """The part of ``pynvml`` that is used."""

    NVMLError: type[Exception]
    NVML_TEMPERATURE_GPU: int

    def nvmlInit(self) -> None: ...  # noqa: N802, D102
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802, D102
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes: ...  # noqa: N802, D102
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...  # noqa: N802, D102
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...  # noqa: N802, D102
    def nvmlDeviceGetTemperature(  # noqa: N802, D102
        self, handle: Any, sensor: int
    ) -> int: ...


@dataclass(frozen=True)
class Gpu:
    """One GPU at one moment; a number that the driver does not tell is ``None``."""

    uuid: str
    name: str
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization_percent: int | None = None
    temperature_c: int | None = None

    def to_fields(self) -> dict[str, str | int | None]:
        """Return it as plain types, for a heartbeat."""
        return asdict(self)


def probe(library: NvmlLibrary | None = None) -> list[Gpu]:
    """Return the GPUs of this computer in the order of their PCI addresses.

    Parameters
    ----------
    library : NvmlLibrary, optional
        In place of ``pynvml``. It stays initialised, as waking the driver can take
        seconds.
    """
    nvml = library if library is not None else _load()
    if nvml is None:
        return []
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        log.debug("no GPUs: %s", error)
        return []
    found = (_read(nvml, index) for index in range(count))
    return [gpu for gpu in found if gpu is not None]


def visible(gpus: Sequence[Gpu], environ: Mapping[str, str]) -> list[Gpu]:
    """Return those GPUs that an inherited ``CUDA_VISIBLE_DEVICES`` leaves us.

    As for CUDA, entries are indices, UUIDs or unambiguous beginnings of UUIDs, the
    first that fits no GPU (such as ``-1``) ends the list, and an empty one means none.
    Indices count in PCI order, as nvidia-smi does; CUDA itself does so only with
    ``CUDA_DEVICE_ORDER=PCI_BUS_ID``, which matters when the GPUs are not all alike.
    """
    mask = environ.get(VISIBLE_DEVICES)
    if mask is None:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in mask.split(","):
        gpu = _find(gpus, entry.strip())
        if gpu is None:
            break
        if gpu not in chosen:
            chosen.append(gpu)
    return chosen


class GpuTable:
    """Who has which GPU: no GPU has two owners, and no owner two leases.

    Parameters
    ----------
    uuids : iterable of str
        The GPUs that may be leased.
    """

    def __init__(self, uuids: Iterable[str]) -> None:
        self._owners: dict[str, str | None] = dict.fromkeys(uuids)

    @property
    def uuids(self) -> list[str]:
        """The GPUs that may be leased, whether free or not."""
        return list(self._owners)

    def lease(self, owner: str, count: int) -> list[str] | None:
        """Give an owner so many GPUs, or none at all (``None``) if too few are free.

        Raises
        ------
        ValueError
            The owner has GPUs already; release them first.
        """
        if held := [u for u, o in self._owners.items() if o == owner]:
            raise ValueError(f"{owner} already has {held}; release them first")
        uuids = self.free()[: max(0, count)]
        if len(uuids) < count:
            return None
        self._owners.update(dict.fromkeys(uuids, owner))
        return uuids

    def release(self, owner: str) -> list[str]:
        """Take back what an owner has and return it."""
        uuids = [u for u, o in self._owners.items() if o == owner]
        self._owners.update(dict.fromkeys(uuids))
        return uuids

    def owner(self, uuid: str) -> str | None:
        """Return who has a GPU, or ``None`` when it is free or not ours to lease."""
        return self._owners.get(uuid)

    def free(self) -> list[str]:
        """Return the GPUs that nobody has."""
        return [uuid for uuid, owner in self._owners.items() if owner is None]


def _load() -> NvmlLibrary | None:
    try:
        import pynvml
    except ImportError:
        return None
    library: NvmlLibrary = pynvml
    return library


def _read(nvml: NvmlLibrary, index: int) -> Gpu | None:
    """Read one GPU, or nothing from one that fell off the bus."""

    def ask(question: Callable[[], int]) -> int | None:
        try:
            return int(question())
        except nvml.NVMLError:  # not every model and mode answers everything
            return None

    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
    except nvml.NVMLError as error:
        log.debug("GPU %d does not answer: %s", index, error)
        return None
    sensor = nvml.NVML_TEMPERATURE_GPU
    return Gpu(
        uuid=_text(uuid),
        name=_text(name),
        memory_total_bytes=ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total),
        memory_used_bytes=ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
        utilization_percent=ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
        temperature_c=ask(lambda: nvml.nvmlDeviceGetTemperature(handle, sensor)),
    )


def _find(gpus: Sequence[Gpu], entry: str) -> Gpu | None:
    if entry.isdecimal():
        index = int(entry)
        return gpus[index] if index < len(gpus) else None
    if not entry.startswith(_SHORTEST_PREFIX):
        return None
    matching = [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
