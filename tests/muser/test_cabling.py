from __future__ import annotations

import numpy as np
import pytest
from synthetic import make_frames

from muser_pipeline.calibration import exchange_inputs
from muser_pipeline.errors import FrameValueError
from muser_pipeline.raw import Frames


def matrix(frames: Frames, n: int, c: int) -> np.ndarray:
    """Return all correlations of a frame and channel, both ways round."""
    count = frames.describe().antennas
    full = np.zeros((count, count), dtype=np.complex64)
    first, second = np.triu_indices(count, k=1)
    full[first, second] = frames.visibilities[n, :, c]
    full[second, first] = frames.visibilities[n, :, c].conj()
    return full


@pytest.mark.parametrize(("one", "other"), [(14, 15), (39, 0), (20, 20)])
def test_inputs_are_exchanged_with_all_their_baselines(one: int, other: int) -> None:
    frames = make_frames(1, 2)
    flags = frames.flags.copy()
    first, second = frames.describe().baseline_inputs()
    flags[1, (first == one) | (second == one)] = True
    frames = frames.replace(flags=flags)
    exchanged = exchange_inputs(frames, one, other)
    order = list(range(40))
    order[one], order[other] = other, one
    expected = matrix(frames, 1, 9)[np.ix_(order, order)]
    assert np.array_equal(matrix(exchanged, 1, 9), expected)
    flagged = (first == other) | (second == other)
    assert np.array_equal(exchanged.flags[1, :, 0], flagged)
    assert np.array_equal(
        exchanged.autocorrelations[:, :, :40], frames.autocorrelations[:, :, order]
    )
    assert np.array_equal(exchanged.delay_ns, frames.delay_ns)
    back = exchange_inputs(exchanged, one, other)
    assert np.array_equal(back.visibilities, frames.visibilities)


def test_an_idle_input_cannot_be_exchanged() -> None:
    with pytest.raises(FrameValueError, match="input 40 of MUSER-I carries no antenna"):
        exchange_inputs(make_frames(1, 1), 3, 40)
