"""The dream as a Gymnasium environment."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY

import genie_cpp
from genie_cpp import _C
from genie_cpp.models import Genie

gymnasium = pytest.importorskip("gymnasium")
gym = genie_cpp.gym


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Genie, Path]:
    """An untrained model of 16x16 pixels and a recording of 8 episodes."""
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("gym") / "world.h5"
    _C.write_synthetic_world(str(path), 240, 16, 16, 30, 0)
    return Genie(_C.Config.parse(TINY)).eval(), path


def make(world: tuple[Genie, Path], **options: object) -> gymnasium.Env:
    return gymnasium.make("genie_cpp/Genie-v0", model=world[0], data=world[1], **options)


def test_gymnasiums_own_check_finds_nothing(world: tuple[Genie, Path]) -> None:
    from gymnasium.utils.env_checker import check_env

    env = make(world, render_mode="rgb_array", max_steps=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)  # the check closes and makes it anew by its spec
    env.reset(seed=0)
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.shape == (16, 16, 3)


def test_the_id_alone_brings_the_module_along() -> None:
    code = """import gymnasium
try:
    gymnasium.make("genie_cpp.gym:genie_cpp/Genie-v0", model="nowhere")
except Exception as error:
    print(type(error).__name__, error)"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "GenieError" in result.stdout and "nowhere is no run directory" in result.stdout, result.stderr


def test_a_seed_decides_the_prompt_and_the_dream(world: tuple[Genie, Path]) -> None:
    env = make(world)

    def episode(seed: int) -> tuple[int, list[np.ndarray]]:
        frame, info = env.reset(seed=seed)
        return info["prompt"], [frame, *(env.step(action)[0] for action in (0, 1, 2, 3))]

    (first, frames), (again, same), (other, _) = episode(7), episode(7), episode(8)
    assert first == again and first != other
    assert all(np.array_equal(a, b) for a, b in zip(frames, same, strict=True))


def test_resets_without_a_seed_go_on_to_other_prompts(world: tuple[Genie, Path]) -> None:
    env = make(world)
    prompts = [env.reset(seed=3)[1]["prompt"], *(env.reset()[1]["prompt"] for _ in range(5))]
    assert len(set(prompts)) > 1


def test_episodes_are_truncated_and_never_terminate(world: tuple[Genie, Path]) -> None:
    env = make(world, max_steps=3)
    env.reset(seed=0)
    ends = [env.step(0)[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_reward_is_zero_unless_a_function_gives_one(world: tuple[Genie, Path]) -> None:
    env = make(world)
    env.reset(seed=0)
    assert env.step(1)[1] == 0.0
    seen = []

    def reward(before: np.ndarray, action: int, after: np.ndarray) -> float:
        seen.append((before, action, after))
        return 10.0 + action

    env = make(world, reward=reward)
    first, _ = env.reset(seed=0)
    second, value, *_ = env.step(2)
    assert value == 12.0
    assert np.array_equal(seen[0][0], first) and np.array_equal(seen[0][2], second)


def test_a_prompt_can_be_named_by_number_file_or_frames(world: tuple[Genie, Path]) -> None:
    env = make(world, context=2)
    by_number, info = env.reset(seed=1, options={"prompt": 45})
    by_name, _ = env.reset(seed=1, options={"prompt": f"{world[1]}:45"})
    frames = _C.VideoFile(str(world[1])).read_frames(44, 2).numpy()
    by_frames, _ = env.reset(seed=1, options={"prompt": frames})
    assert info["prompt"] == 45
    assert np.array_equal(by_number, by_name) and np.array_equal(by_number, by_frames)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"context": 9}, "context must be 1..3"),
        ({"render_mode": "human"}, "render_mode"),
        ({"heat": 1}, "unknown option 'heat'"),
    ],
)
def test_options_out_of_range_are_named(world: tuple[Genie, Path], options: dict, words: str) -> None:
    with pytest.raises(genie_cpp.GenieError, match=words):
        gym.GenieEnv(world[0], world[1], **options)


def test_a_prompt_of_another_shape_is_refused(world: tuple[Genie, Path]) -> None:
    env = gym.GenieEnv(world[0], world[1])
    with pytest.raises(genie_cpp.GenieError, match="16, 16, 3"):
        env.reset(options={"prompt": np.zeros((4, 4, 3), np.uint8)})
    with pytest.raises(genie_cpp.GenieError, match="call reset"):
        env.step(0)


def test_worlds_of_a_batch_step_together_and_begin_anew_in_the_next_step(world: tuple[Genie, Path]) -> None:
    envs = gymnasium.make_vec("genie_cpp/Genie-v0", num_envs=3, model=world[0], data=world[1], max_steps=2)
    frames, info = envs.reset(seed=5)
    assert frames.shape == (3, 16, 16, 3) and frames in envs.observation_space
    assert len(set(info["prompt"].tolist())) > 1
    envs.step(np.array([0, 1, 2]))
    _, rewards, terminated, truncated, _ = envs.step(np.array([3, 3, 3]))
    assert truncated.all() and not terminated.any() and (rewards == 0).all()
    frames, _, _, truncated, info = envs.step(np.array([0, 0, 0]))
    assert not truncated.any() and len(info["prompt"]) == 3
    prompts = world[1]
    recorded = _C.VideoFile(str(prompts)).num_frames
    assert all(0 <= number < recorded for number in info["prompt"])


def test_seeds_of_a_batch_choose_the_prompts_of_single_worlds(world: tuple[Genie, Path]) -> None:
    envs = gym.GenieVectorEnv(2, *world)
    _, info = envs.reset(seed=[11, 12])
    single = [make(world).reset(seed=seed)[1]["prompt"] for seed in (11, 12)]
    assert info["prompt"].tolist() == single


def test_without_gymnasium_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['gymnasium'] = None\nimport genie_cpp\ngenie_cpp.gym"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "genie_cpp[gym]" in result.stderr
