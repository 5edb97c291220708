"""What is made of latencies of images; they themselves are not judged."""

from __future__ import annotations

import pytest

from bench.image_latency import figures_of


def test_the_tail_grows_by_so_many_batch_pieces() -> None:
    alone = [[0.1, 0.2, 0.3], [0.1, 0.1, 0.1], [0.2, 0.4, 0.2]]
    loaded = [[0.2, 0.3, 0.5], [0.4, 0.4, 0.8], [0.3, 0.3, 0.3]]
    found = {f.name: f for f in figures_of(alone, loaded, [0.4, 0.5, 1.0], [3.0])}
    median = found["no batch load: last byte to image, median"]
    assert median.runs == pytest.approx([200, 100, 200])
    assert median.unit == "ms"
    tail = found["batch load: last byte to image, p99"]
    assert tail.runs == pytest.approx([500, 800, 300])
    # beyond the usual tail without load, 0.3 s
    growth = found["growth of p99, in lengths of a batch piece"]
    assert growth.runs == pytest.approx([0.5, 1.0, 0.0])
    assert found["images through the whole chain"].runs == [3.0]
