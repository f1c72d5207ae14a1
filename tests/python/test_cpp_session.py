"""A session in C++ and one in Python are the same session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import TINY, execute

from genie_cpp import _C
from genie_cpp.models import Genie

PLAY = Path(__file__).parents[2] / "build" / "examples" / "play"
pytestmark = pytest.mark.skipif(not PLAY.is_file(), reason="the example is not built: make build")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Genie, Path, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("cpp_session")
    _C.write_synthetic_world(str(folder / "world.h5"), 60, 16, 16, 30, 0)
    genie = Genie(_C.Config.parse(TINY)).eval()
    genie.save_pretrained(folder / "run")
    return genie, folder / "run", folder / "world.h5"


def test_the_example_program_plays_the_frames_that_python_plays(
    world: tuple[Genie, Path, Path], tmp_path: Path
) -> None:
    genie, run, recording = world
    actions = [0, 1, 2, 3, 3, 1]
    session = genie.play(f"{recording}:12", seed=5)
    expected = np.stack([session.frame, *(session.step(action) for action in actions)])

    result = execute(PLAY, run, recording, 12, tmp_path / "out.h5", *actions, "--seed", 5)
    assert result.returncode == 0, result.stderr
    written = _C.VideoFile(str(tmp_path / "out.h5"))
    assert np.array_equal(written.read_frames(0, written.num_frames).numpy(), expected)
    assert len(np.unique(expected.reshape(len(expected), -1), axis=0)) > 1


@pytest.mark.parametrize(
    ("frame", "actions", "words"), [(99, [0], "has frames 0..59"), (1, [0, 4], "actions are 0..3, got 4")]
)
def test_the_example_program_says_what_it_cannot_play(
    world: tuple[Genie, Path, Path], tmp_path: Path, frame: int, actions: list[int], words: str
) -> None:
    result = execute(PLAY, *world[1:], frame, tmp_path / "out.h5", *actions)
    assert result.returncode == 1 and words in result.stderr
    assert not list(tmp_path.iterdir())
