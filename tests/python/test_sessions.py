"""Sessions: a world that is driven, taken back, split and put away gives the frames it would have given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_models import ACTIONS, FRAMES, random_video, shaken, tiny_config

from genie_cpp.errors import GenieError
from genie_cpp.models import Genie


@pytest.fixture(scope="module")
def genie() -> Genie:
    return shaken(Genie(tiny_config()), seed=5)


def driven(session, count: int) -> list[np.ndarray]:
    return [session.step([step % ACTIONS]) for step in range(count)]


def test_the_same_seed_and_actions_give_the_same_frames(genie: Genie) -> None:
    prompt = random_video(1)[0]
    first, second = genie.play(prompt[None], seed=3), genie.play(prompt[None], seed=3)
    for a, b in zip(driven(first, 2 * FRAMES), driven(second, 2 * FRAMES), strict=True):
        assert a.dtype == np.uint8 and np.array_equal(a, b)


def test_rewinding_and_forking_give_the_frames_again(genie: Genie) -> None:
    session = genie.play(random_video(2)[:1], seed=1)
    frames = driven(session, FRAMES + 2)
    session.rewind(2)
    assert np.array_equal(session.frame, frames[-3])
    fork = session.fork()
    for branch in (session, fork):
        again = [branch.step([step % ACTIONS]) for step in range(FRAMES, FRAMES + 2)]
        assert all(np.array_equal(a, b) for a, b in zip(again, frames[-2:], strict=True))


def test_a_saved_session_goes_on_as_the_original(genie: Genie, tmp_path: Path) -> None:
    session = genie.play(random_video(3)[:1], seed=2)
    driven(session, FRAMES)
    session.save(tmp_path / "session")
    restored = genie.load_session(tmp_path / "session")
    assert np.array_equal(restored.frame, session.frame)
    for a, b in zip(driven(session, 3), driven(restored, 3), strict=True):
        assert np.array_equal(a, b)
    (tmp_path / "other").write_bytes(b"no session")
    with pytest.raises(GenieError):
        genie.load_session(tmp_path / "other")


def test_a_session_refuses_an_action_that_does_not_exist(genie: Genie) -> None:
    session = genie.play(random_video(4)[:1])
    frame = session.frame.copy()
    with pytest.raises((IndexError, ValueError, GenieError), match="action"):
        session.step([ACTIONS])
    assert np.array_equal(session.frame, frame)
    assert torch.is_grad_enabled()
