"""A learned world as a Gymnasium environment, so that agents can train in the dream.

    import gymnasium
    import genie_cpp.gym

    env = gymnasium.make("genie_cpp/Genie-v0", model="runs/demo", data="runs/demo/boxing.h5")
    envs = gymnasium.make_vec("genie_cpp/Genie-v0", num_envs=8, model="runs/demo", data="runs/demo/boxing.h5")

Gymnasium is not among genie_cpp's own dependencies: pip install "genie_cpp[gym]".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from genie_cpp import generation
from genie_cpp.errors import GenieError
from genie_cpp.inference import Session
from genie_cpp.models import Genie, load
from genie_cpp.prompts import PromptFile

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'genie_cpp.gym needs Gymnasium, which is not installed: pip install "genie_cpp[gym]" or gymnasium'
    ) from error

__all__ = ["ENV_ID", "GenieEnv", "GenieVectorEnv"]

ENV_ID = "genie_cpp/Genie-v0"
SAMPLING = frozenset({"steps", "temperature", "schedule", "unmasking", "top_k", "top_p"})

RewardFunction: TypeAlias = Callable[[np.ndarray, int, np.ndarray], float]
"""Reward of (frame before, action, frame after); frames are uint8 (H,W,3)."""


class _Dream:
    """What the two environments share: the model, the prompts, and what was asked for."""

    def __init__(
        self,
        model: Genie | str | os.PathLike[str],
        data: str | os.PathLike[str] | None,
        context: int,
        max_steps: int,
        reward: RewardFunction | None,
        render_mode: str | None,
        sampling: dict[str, Any],
    ) -> None:
        if unknown := set(sampling) - SAMPLING:
            raise GenieError(
                f"unknown option {sorted(unknown)[0]!r}; of sampling there are {', '.join(sorted(SAMPLING))}"
            )
        if max_steps < 1:
            raise GenieError(f"max_steps must be at least 1, got {max_steps}")
        if render_mode not in (None, "rgb_array"):
            raise GenieError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.genie = model if isinstance(model, Genie) else load(model)
        self.prompts = PromptFile(data, self.genie.config)
        self.prompts.check_context(context)
        self.context, self.max_steps, self.reward, self.sampling = context, max_steps, reward, sampling
        shape = (self.prompts.height, self.prompts.width, 3)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(self.genie.latent_action.num_actions)

    def prompt(self, wanted: Any, rng: np.random.Generator) -> tuple[np.ndarray, int | None]:
        """Frames uint8 (T0,H,W,3) to start from, and the number of the last one where it is from `data`."""
        if wanted is None:
            wanted = self.prompts.draw(rng, self.context)
        if isinstance(wanted, (int, np.integer)):
            return self.prompts.read(int(wanted), self.context), int(wanted)
        if isinstance(wanted, str):
            path, frame = generation.parse_prompt(wanted)
            return PromptFile(path, self.genie.config).read(frame, self.context), None
        frames = np.asarray(wanted)
        frames = frames[None] if frames.ndim == 3 else frames
        expected = self.observation_space.shape
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != expected:
            raise GenieError(
                f"a prompt is a frame number, 'FILE.h5:FRAME' or uint8 frames of shape {expected}, one or "
                f"several; got {frames.dtype} of shape {frames.shape}"
            )
        return frames, None

    def rewards(self, before: np.ndarray, actions: np.ndarray, after: np.ndarray) -> np.ndarray:
        if self.reward is None:
            return np.zeros(len(actions), np.float64)
        steps = zip(before, actions, after, strict=True)
        return np.array([float(self.reward(old, int(a), new)) for old, a, new in steps], np.float64)


class GenieEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One dreamed world, registered as "genie_cpp/Genie-v0".

    Observations are frames, uint8 (H,W,3); actions are latent actions, Discrete(num_actions). An episode
    never terminates and is truncated after `max_steps` steps. The reward is 0, or what `reward(before,
    action, after)` gives for the frames around a step.

    `model` is a run directory or a loaded Genie. `data` is the HDF5 file that prompts come from; None
    takes the validation or else the training file of the model's configuration. `context` frames are the
    prompt (default 1), `sampling` holds steps, temperature, schedule, unmasking, top_k, top_p where they
    differ from the configuration.

    `reset(seed=..., options={"prompt": ...})`: the seed decides both the prompt and all randomness of the
    dream; the option names the prompt instead: a frame's number, "FILE.h5:FRAME" or uint8 frames (H,W,3)
    or (T,H,W,3). Raises GenieError for an option out of its range.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(
        self,
        model: Genie | str | os.PathLike[str],
        data: str | os.PathLike[str] | None = None,
        *,
        context: int = 1,
        max_steps: int = 200,
        reward: RewardFunction | None = None,
        render_mode: str | None = None,
        **sampling: Any,
    ) -> None:
        self._dream = _Dream(model, data, context, max_steps, reward, render_mode, sampling)
        self.metadata = {**self.metadata, "render_fps": self._dream.prompts.fps}
        self.render_mode = render_mode
        self.observation_space = self._dream.observation_space
        self.action_space = self._dream.action_space
        self._session: Session | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        prompt, number = self._dream.prompt((options or {}).get("prompt"), self.np_random)
        dream_seed = int(self.np_random.integers(2**31))
        self._session = self._dream.genie.play(prompt, dream_seed, **self._dream.sampling)
        return self._session.frame, {"prompt": number, "seed": dream_seed}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        session = self._started()
        before = session.frame
        after = session.step(action)
        reward = self._dream.rewards(before[None], np.array([action]), after[None])[0]
        truncated = session.num_steps_taken >= self._dream.max_steps
        return after, float(reward), False, truncated, {}

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The current frame, with render_mode "rgb_array"."""
        session = self._started()
        return session.frame if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        self._session = None

    def _started(self) -> Session:
        if self._session is None:
            raise GenieError("no episode has begun: call reset() first")
        return self._session


class GenieVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`num_envs` dreamed worlds that take their steps together, as one batch.

    Made by gymnasium.make_vec("genie_cpp/Genie-v0", num_envs=...); options and spaces are GenieEnv's. All
    episodes are truncated in the same step and begin anew in the next one, whose actions are not used and
    whose rewards are 0 (Gymnasium's AutoresetMode.NEXT_STEP). `reset` takes one seed, or a list whose
    entries choose the prompts; options={"prompt": [...]} names one prompt a world.
    """

    metadata = {
        "render_modes": ["rgb_array"],
        "render_fps": 15,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int,
        model: Genie | str | os.PathLike[str],
        data: str | os.PathLike[str] | None = None,
        *,
        context: int = 1,
        max_steps: int = 200,
        reward: RewardFunction | None = None,
        render_mode: str | None = None,
        **sampling: Any,
    ) -> None:
        if num_envs < 1:
            raise GenieError(f"num_envs must be at least 1, got {num_envs}")
        self._dream = _Dream(model, data, context, max_steps, reward, render_mode, sampling)
        self.metadata = {**self.metadata, "render_fps": self._dream.prompts.fps}
        self.num_envs, self.render_mode = num_envs, render_mode
        self.single_observation_space = self._dream.observation_space
        self.single_action_space = self._dream.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._session: Session | None = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        several = seed if isinstance(seed, list) else None
        if several is not None and len(several) != self.num_envs:
            raise GenieError(f"{self.num_envs} worlds take as many seeds, got {len(several)}")
        super().reset(seed=several[0] if several else seed)  # type: ignore[arg-type]
        wanted = (options or {}).get("prompt")
        wanted = [None] * self.num_envs if wanted is None else list(wanted)
        if len(wanted) != self.num_envs:
            raise GenieError(f"{self.num_envs} worlds take as many prompts, got {len(wanted)}")
        generators = [self.np_random] * self.num_envs
        if several is not None:
            generators = [self.np_random if s is None else np.random.default_rng(s) for s in several]
        found = [self._dream.prompt(one, rng) for one, rng in zip(wanted, generators, strict=True)]
        if len({len(frames) for frames, _ in found}) > 1:
            raise GenieError("the prompts of a vector environment must have the same number of frames")
        dream_seed = int(self.np_random.integers(2**31))
        video = np.stack([frames for frames, _ in found])
        self._session = self._dream.genie.play(video, dream_seed, **self._dream.sampling)
        numbers = np.array([-1 if number is None else number for _, number in found])
        return self._session.frame, {"prompt": numbers, "seed": np.full(self.num_envs, dream_seed)}

    def step(self, actions: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        session = self._started()
        nothing = np.zeros(self.num_envs, np.bool_)
        if session.num_steps_taken >= self._dream.max_steps:
            frames, info = self.reset()
            return frames, np.zeros(self.num_envs), nothing, nothing.copy(), info
        chosen = np.asarray(actions)
        before = session.frame
        after = session.step(chosen)
        truncated = np.full(self.num_envs, session.num_steps_taken >= self._dream.max_steps)
        return after, self._dream.rewards(before, chosen, after), nothing, truncated, {}

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        session = self._started()
        return tuple(session.frame) if self.render_mode == "rgb_array" else None

    def close_extras(self, **kwargs: Any) -> None:
        self._session = None

    def _started(self) -> Session:
        if self._session is None:
            raise GenieError("no episode has begun: call reset() first")
        return self._session


gymnasium.register(
    id=ENV_ID,
    entry_point="genie_cpp.gym:GenieEnv",
    vector_entry_point="genie_cpp.gym:GenieVectorEnv",
)
