"""How much memory each process takes when it has nothing to do."""

from __future__ import annotations

from bench.figures import Figure
from bench.first_result import first_result
from bench.processes import private_mib, resident_mib
from bench.workers import TARGET
from opencluster.testing.local_cluster import LocalCluster


def measure(is_quick: bool) -> list[Figure]:
    """Measure resident and private memory (RSS and USS) after one piece.

    Neither the worker nor the manager has imported NumPy: the piece has no array.
    """
    runs = [_run() for _ in range(2 if is_quick else 5)]
    return [
        Figure("memory", f"{process}, {kind}", "MiB", [run[process][i] for run in runs])
        for process in runs[0]
        for i, kind in enumerate(("resident", "private"))
    ]


def _run() -> dict[str, tuple[float, float]]:
    """Return the resident and the private MiB of each process."""
    with LocalCluster({TARGET: 1}) as cluster, first_result() as manager:
        daemons = cluster.place.read()
        worker = cluster.ask_factory("find", {"kind": "worker"})[0]
        pids = {
            "factory": daemons["factories"][0]["pid"],
            "workshop": daemons["workshops"][0]["pid"],
            "idle worker": worker["pid"],
            "manager": manager,
        }
        return {n: (resident_mib(p), private_mib(p)) for n, p in pids.items()}
