from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from genie_cpp import viz
from genie_cpp.errors import GenieError

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)


def test_frames_survive_the_models_layout() -> None:
    video = viz.to_model(FRAMES)
    assert video.shape == (3, 3, 6, 5)
    assert np.array_equal(viz.to_frames(video), FRAMES)
    assert viz.to_frames(torch.tensor([-1.0, 2.0, 0.5]).view(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]


def test_upscaling_repeats_pixels() -> None:
    large = viz.upscale(FRAMES, 3)
    assert large.shape == (3, 18, 15, 3)
    assert np.array_equal(large[:, 1::3, 2::3], FRAMES)


def test_a_grid_puts_rows_below_one_another() -> None:
    image = viz.grid([FRAMES, FRAMES[:1]], gap=1, background=7)
    assert image.shape == (13, 17, 3)
    assert np.array_equal(image[:6, 6:11], FRAMES[1])
    assert np.array_equal(image[7:, :5], FRAMES[0])
    assert (image[7:, 6:] == 7).all()


@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".webm", ".png"])
def test_saved_videos_have_all_frames(tmp_path: Path, suffix: str) -> None:
    frames = viz.upscale(FRAMES, 8)[:, :, :39]  # an odd width
    path = tmp_path / "new" / f"out{suffix.upper()}"
    viz.save(path, frames, fps=12.5)
    if suffix == ".png":
        assert Image.open(path).size == (3 * 39 + 2 * 2, 48)
    elif suffix == ".gif":
        assert Image.open(path).n_frames == 3
    else:
        with av.open(str(path)) as container:
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(decoded) == 3
        assert decoded[0].shape == (48, 40, 3)


def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(GenieError, match=r"cannot write \.avi; choose one of \.gif, \.png, \.mp4, \.webm"):
        viz.save(tmp_path / "out.avi", FRAMES)
