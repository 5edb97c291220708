"""What the figures of a computer and its processes are called as metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from opencluster.core.metrics import Labels, Metric, Named, each
from opencluster.node.gpus import Gpu

_PART = 0.01
"""Figures are in percent, metrics in parts of one."""

_COMPUTER: list[Named] = [
    ("cpu_used_ratio", "cpu_percent", _PART, "Use of all processors together."),
    ("cpus", "cpu_count", 1, "Processors that may be used."),
    ("load1", "load_1", 1, "Load average of the last minute."),
    ("memory_bytes", "memory_total_bytes", 1, "Memory of the computer."),
    ("memory_used_bytes", "memory_used_bytes", 1, "Of which is in use."),
    ("swap_used_bytes", "swap_used_bytes", 1, "Swap in use."),
    ("disk_bytes", "disk_total_bytes", 1, "Size of the root file system."),
    ("disk_used_bytes", "disk_used_bytes", 1, "Of which is in use."),
]
_RATES: list[Named] = [
    (f"{what}_bytes_per_second", f"{what}_bytes_per_s", 1, help)
    for what, help in (
        ("disk_read", "Read from disks."),
        ("disk_write", "Written to disks."),
        ("network_received", "Received, loopback not counted."),
        ("network_sent", "Sent, loopback not counted."),
    )
]
_GPU: list[Named] = [
    ("gpu_memory_bytes", "memory_total_bytes", 1, "Memory of a GPU."),
    ("gpu_memory_used_bytes", "memory_used_bytes", 1, "Of which is in use."),
    ("gpu_used_ratio", "utilization_percent", _PART, "Use of a GPU."),
    ("gpu_temperature_celsius", "temperature_c", 1, "How hot a GPU is."),
]
_PROCESS: list[Named] = [
    ("pieces_done_total", "pieces_done", 1, "Pieces that ended with a result."),
    ("pieces_failed_total", "pieces_failed", 1, "Pieces that ended with an error."),
    ("process_kept_bytes", "kept_bytes", 1, "Values that it keeps for managers."),
    ("process_resident_bytes", "rss_bytes", 1, "Resident memory of a process."),
    ("process_cpu_ratio", "cpu_percent", _PART, "Use of one processor by a process."),
]


def of_computer(sample: Mapping[str, float], gpus: Iterable[Gpu]) -> list[Metric]:
    """Return metrics of a computer and its GPUs.

    Parameters
    ----------
    sample : mapping
        What `Measurer.sample` returned.
    gpus : iterable of Gpu
        Its GPUs.
    """
    fields: dict[Labels, Mapping[str, Any]] = {
        (("uuid", gpu.uuid),): gpu.to_fields() for gpu in gpus
    }
    return [*each(_COMPUTER + _RATES, {(): sample}), *each(_GPU, fields)]


def of_processes(processes: Mapping[Labels, Mapping[str, Any]]) -> list[Metric]:
    """Return metrics of the processes of a computer.

    Parameters
    ----------
    processes : mapping
        Figures of each, by its labels, of which the first is its type.
    """
    states = Counter(
        (labels[0], ("state", str(own.get("state"))))
        for labels, own in processes.items()
    )
    number = Metric("processes", "Workers and services.", list(states.items()))
    return [number, *each(_PROCESS, processes)]
