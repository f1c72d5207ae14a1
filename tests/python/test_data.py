from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from genie_cpp import _C
from genie_cpp.data import import_videos, record_atari
from genie_cpp.errors import GenieError


def make_video(path: Path, frames: int = 30, fps: int = 30, width: int = 64, height: int = 32) -> Path:
    """Frame i is a grey of brightness 7 * i, its left and right quarters white."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9" if path.suffix == ".webm" else "libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "5"}
        for number in range(frames):
            image = np.full((height, width, 3), 7 * number, np.uint8)
            image[:, : width // 4] = image[:, -width // 4 :] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def frames_of(path: Path) -> np.ndarray:
    file = _C.VideoFile(str(path))
    return np.asarray(file.read_frames(0, file.num_frames))


def test_recording_has_the_layout_and_actions_of_the_game(tmp_path: Path) -> None:
    seen: list[int] = []
    record_atari(
        tmp_path / "new" / "boxing.h5", "boxing", 50, 48, seed=1, episode_length=20, progress=seen.append
    )
    file = _C.VideoFile(str(tmp_path / "new" / "boxing.h5"))
    assert (file.num_frames, file.height, file.width) == (50, 48, 48)
    assert (file.fps, file.env, file.num_actions) == (15, "atari/boxing", 18)
    assert list(file.episode_ends) == [20, 40, 50]
    assert seen == list(range(1, 51))
    actions = np.asarray(file.actions)
    assert actions.min() >= 0 and actions.max() < 18
    # Held for at least two frames: at most half of the neighbours differ.
    assert (np.diff(actions) != 0).mean() <= 0.5
    frames = np.asarray(file.read_frames(0, 50)).astype(int)
    assert np.abs(np.diff(frames, axis=0)).sum() > 0


def test_recording_is_decided_by_the_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        record_atari(tmp_path / name, frames=30, size=16, seed=seed, episode_length=15)
    a, b, c = (frames_of(tmp_path / name) for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_an_unknown_game_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(GenieError, match="did you mean boxing"):
        record_atari(tmp_path / "x.h5", "boxin")


@pytest.mark.parametrize(("name", "value"), [("frames", 0), ("size", 4), ("episode_length", 1)])
def test_impossible_recordings_are_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(GenieError, match=f"{name} must be .* got {value}"):
        record_atari(tmp_path / "x.h5", **{name: value})


def test_an_interrupted_recording_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_atari(tmp_path / "x.h5", frames=10, size=16, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_import_samples_by_time_and_keeps_the_middle(tmp_path: Path, suffix: str) -> None:
    source = make_video(tmp_path / f"in{suffix}")
    counts = import_videos([source], tmp_path / "out.h5", fps=10, width=16, height=16)
    assert counts == [10]
    frames = frames_of(tmp_path / "out.h5").astype(int)
    assert frames.shape == (10, 16, 16, 3)
    # Every third frame; the white quarters are cut away by the square.
    expected = 7 * np.arange(0, 30, 3)
    assert np.abs(frames[:, :, 2:-2].mean((1, 2, 3)) - expected).max() <= 4


def test_each_imported_video_is_an_episode_without_actions(tmp_path: Path) -> None:
    sources = [make_video(tmp_path / "a.mp4", 12), make_video(tmp_path / "b.mp4", 21, fps=15, width=48)]
    import_videos(sources, tmp_path / "out.h5", fps=15, width=20, height=12)
    file = _C.VideoFile(str(tmp_path / "out.h5"))
    assert list(file.episode_ends) == [6, 27]
    assert (file.fps, file.has_actions, file.height, file.width) == (15, False, 12, 20)


def test_unreadable_videos_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video at all")
    out = tmp_path / "out.h5"
    with pytest.raises(GenieError, match="missing.mp4: there is no such video file"):
        import_videos([tmp_path / "missing.mp4"], out)
    with pytest.raises(GenieError, match="text.mp4: cannot be read as a video"):
        import_videos([tmp_path / "text.mp4"], out)
    with pytest.raises(GenieError, match="has 30 frames a second, fewer than the 60"):
        import_videos([make_video(tmp_path / "slow.mp4", 3)], out, fps=60)
    assert not out.exists()


def test_impossible_imports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GenieError, match="at least one file"):
        import_videos([], tmp_path / "out.h5")
    with pytest.raises(GenieError, match="fps must be above 0"):
        import_videos([tmp_path / "a.mp4"], tmp_path / "out.h5", fps=float("nan"))
    with pytest.raises(GenieError, match="between 8 and 4096"):
        import_videos([tmp_path / "a.mp4"], tmp_path / "out.h5", width=2)
