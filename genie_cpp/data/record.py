"""Records Atari games through the Arcade Learning Environment (ale-py, whose wheel carries the ROMs)."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from genie_cpp import _C
from genie_cpp.errors import GenieError

FRAME_SKIP = 4
FPS = 60 // FRAME_SKIP
HOLD = (
    6,
    20,
)  # an action is held for so many frames: what it does is seen, and the next frames can be foretold
WARM_UP = 60  # up to so many unrecorded frames let each episode begin somewhere else


def record_atari(
    path: str | Path,
    game: str = "boxing",
    frames: int = 4000,
    size: int = 64,
    seed: int = 0,
    episode_length: int = 250,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Plays `game` at random and writes `frames` frames of size x size pixels, 15 a second, to `path`.

    Each random action of the game's minimal set is held for 6 to 20 frames. An episode ends with the game or
    after `episode_length` frames; the next starts the game anew, after up to 60 unrecorded frames. The same
    arguments give the same file. `progress` is called with the number of frames written.
    """
    _check(frames >= 1, f"frames must be at least 1, got {frames}")
    _check(8 <= size <= 1024, f"size must be between 8 and 1024 pixels, got {size}")
    _check(episode_length >= 2, f"episode_length must be at least 2 frames, got {episode_length}")
    ale = _open_game(game, seed)
    actions = ale.getMinimalActionSet()
    rng = np.random.default_rng(seed)
    action, hold, length = 0, 0, 0
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"fps": FPS, "env": f"atari/{game}", "num_actions": len(actions)}
    with _C.VideoWriter(str(path), size, size, **options) as writer:
        for written in range(1, frames + 1):
            if length == 0:
                _start_episode(ale, actions, rng)
            if hold == 0:
                action, hold = int(rng.integers(len(actions))), int(rng.integers(HOLD[0], HOLD[1] + 1))
            screen = Image.fromarray(ale.getScreenRGB()).resize((size, size), Image.Resampling.BOX)
            writer.append(torch.from_numpy(np.array(screen))[None], torch.tensor([action]))
            ale.act(actions[action])
            hold, length = hold - 1, length + 1
            if length == episode_length or ale.game_over() or written == frames:
                writer.end_episode()
                length = 0
            if progress is not None:
                progress(written)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise GenieError(message)


def _open_game(game: str, seed: int) -> Any:
    try:
        from ale_py import ALEInterface, LoggerMode, roms
    except ImportError as error:
        raise GenieError(
            "recording games needs ale-py, which is not installed: pip install ale-py"
        ) from error
    names = roms.get_all_rom_ids()
    rom = roms.get_rom_path(game) if game in names else None
    if rom is None or not Path(rom).exists():
        near = difflib.get_close_matches(game, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(names))}"
        raise GenieError(f"game must be one that ale-py carries, got {game!r}; {hint}")
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setInt("random_seed", seed)
    ale.setInt("frame_skip", FRAME_SKIP)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(rom)
    return ale


def _start_episode(ale: Any, actions: Any, rng: np.random.Generator) -> None:
    ale.reset_game()
    for _ in range(int(rng.integers(WARM_UP))):
        ale.act(actions[int(rng.integers(len(actions)))])
    if ale.game_over():
        ale.reset_game()
