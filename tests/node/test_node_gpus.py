"""GPUs: a made-up NVML, masks, and leases."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.node import gpus as module
from opencluster.node.gpus import Gpu, GpuTable, probe, visible


class MadeUpNvml:
    """Two GPUs that answer, as `pynvml` would; `broken` calls raise."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        """What every call of the library may raise."""

    def __init__(self, *broken: str) -> None:
        self._broken = broken

    def __getattribute__(self, name: str) -> object:
        if name.startswith("nvml") and name in object.__getattribute__(self, "_broken"):
            raise MadeUpNvml.NVMLError("Not Supported")
        return object.__getattribute__(self, name)

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        if f"device {index}" in self._broken:
            raise self.NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return f"GPU-{handle}".encode() if handle else f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return "H100"

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(total=80, used=8 + handle)

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        return SimpleNamespace(gpu=50, memory=3)

    def nvmlDeviceGetTemperature(self, handle, sensor):  # noqa: N802
        assert sensor == self.NVML_TEMPERATURE_GPU
        return 60


def test_gpus_are_read():
    found = probe(MadeUpNvml())
    assert found == [
        Gpu("GPU-0", "H100", 80, 8, 50, 60),
        Gpu("GPU-1", "H100", 80, 9, 50, 60),
    ]
    assert json.loads(json.dumps(found[0].to_fields()))["utilization_percent"] == 50


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetCount"])
def test_driver_that_does_not_answer_means_no_gpus(broken):
    assert probe(MadeUpNvml(broken)) == []


def test_missing_library_means_no_gpus(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert probe() == []


def test_figures_that_a_model_lacks_are_none():
    found = probe(MadeUpNvml("nvmlDeviceGetTemperature", "nvmlDeviceGetMemoryInfo"))
    assert found[0] == Gpu("GPU-0", "H100", None, None, 50, None)


def test_lost_gpu_is_left_out():
    assert [gpu.uuid for gpu in probe(MadeUpNvml("device 0"))] == ["GPU-1"]


GPUS = [Gpu(uuid, "H100") for uuid in ("GPU-ab12", "GPU-ab34", "GPU-cd56", "GPU-ef78")]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("2", [2]),
        ("3,0", [3, 0]),
        (" 1 , 2 ", [1, 2]),
        ("1,-1,2", [1]),
        ("1,9,2", [1]),
        ("0,,2", [0]),
        ("1,1,2", [1, 2]),
        ("GPU-cd56", [2]),
        ("GPU-cd", [2]),
        ("GPU-ab3,GPU-e", [1, 3]),
        ("GPU-ab,2", []),
        ("GPU-zz,2", []),
        ("NoDevFiles", []),
        ("G", []),
        ("²", []),
    ],
)
def test_inherited_mask_is_respected(mask, expected):
    environ = {} if mask is None else {module.VISIBLE_DEVICES: mask}
    assert visible(GPUS, environ) == [GPUS[index] for index in expected]


def test_lease_is_all_or_nothing():
    table = GpuTable(["a", "b", "c"])
    assert table.uuids == ["a", "b", "c"]
    assert table.lease("w1", 2) == ["a", "b"]
    assert table.lease("w2", 2) is None
    assert table.free() == ["c"]
    assert table.lease("w2", 1) == ["c"]
    assert table.lease("w3", 0) == []
    assert (table.owner("a"), table.owner("c")) == ("w1", "w2")
    assert table.release("w1") == ["a", "b"]
    assert table.owner("a") is None
    assert table.owner("not ours") is None
    assert table.release("w1") == []
    assert table.lease("w3", 1) == ["a"]


def test_second_lease_of_an_owner_is_an_error():
    table = GpuTable(["a", "b"])
    table.lease("w", 1)
    with pytest.raises(ValueError, match=r"w already has \['a'\]"):
        table.lease("w", 1)


def test_gpu_named_twice_is_leased_once():
    table = GpuTable(["a", "a"])
    assert table.lease("w", 2) is None


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from("vwxyz"),
            st.integers(min_value=-1, max_value=4),
        ),
        max_size=40,
    )
)
def test_no_gpu_ever_has_two_owners(steps):
    table = GpuTable(["a", "b", "c"])
    held: dict[str, list[str]] = {}
    for is_lease, owner, count in steps:
        if not is_lease:
            assert table.release(owner) == held.pop(owner, [])
        elif owner not in held:
            leased = table.lease(owner, count)
            if leased:
                held[owner] = leased
        taken = [uuid for uuids in held.values() for uuid in uuids]
        assert len(taken) == len(set(taken))
        assert sorted(taken + table.free()) == ["a", "b", "c"]
        assert all(table.owner(u) == o for o, uuids in held.items() for u in uuids)
