"""The signal of a frame: the same bits in any batch, high where something is wrong, and where it shows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.detection.framesignal import CHUNK, examine, heat_bytes, score_frames
from tests.framemodels import frame_model, textured_frames

MODEL = frame_model()


@pytest.mark.parametrize("shape", [(28, 28), (12, 20)])
@pytest.mark.parametrize("size", [1, 2, 7, CHUNK - 1, CHUNK, CHUNK + 1])
def test_the_bits_of_a_frame_do_not_depend_on_its_batch(shape: tuple[int, int], size: int) -> None:
    model = frame_model(shape)
    frames = textured_frames(2 * CHUNK + 9, shape)
    together = score_frames(model, frames)
    grouped = [score_frames(model, frames[i : i + size]) for i in range(0, len(frames), size)]
    assert np.concatenate(grouped).tobytes() == together.tobytes()
    assert score_frames(model, frames[::-1])[::-1].tobytes() == together.tobytes()


def test_no_frames_no_signal() -> None:
    assert score_frames(MODEL, np.empty((0, 28, 28), np.float32)).shape == (0,)


def test_a_damaged_frame_scores_higher_than_any_good_one() -> None:
    frames = textured_frames(200, seed=5)
    damaged = frames[:20].copy()
    damaged[:, 10:14, 5:7] = 1.0
    assert score_frames(MODEL, damaged).min() > score_frames(MODEL, frames).max()


def test_the_heat_map_shows_where() -> None:
    frame = textured_frames(1, seed=5)[0]
    frame[10:14, 5:7] = 1.0
    seen = examine(MODEL, frame)
    assert seen.heat.shape == seen.reconstruction.shape == (28, 28)
    assert 9 <= seen.summary["peak_row"] <= 14
    assert 4 <= seen.summary["peak_column"] <= 9
    assert seen.heat.max() > 1
    assert seen.summary["peak_ratio"] > 1
    assert heat_bytes(seen.heat).max() == 255


def test_the_heat_map_of_a_good_frame_is_dark() -> None:
    seen = examine(MODEL, textured_frames(1, seed=6)[0])
    assert seen.heat.max() < 1.5
    assert np.median(heat_bytes(seen.heat)) < 100


@pytest.mark.parametrize("frames", [np.zeros((1, 28, 24), np.float32), np.zeros((1, 28, 28))])
def test_other_frames_are_refused_naming_both_shapes(frames: NDArray[np.floating]) -> None:
    with pytest.raises(ValueError, match=r"shape \(28, 28\), these are float"):
        score_frames(MODEL, frames)
