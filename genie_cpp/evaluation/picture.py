"""The picture beside an evaluation's figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from genie_cpp.evaluation.evaluate import Evaluation
from genie_cpp.viz import labelled_grid, to_frames, upscale

CLIPS = 3
SHOWN_PIXELS = 96  # a frame is shown at least this tall


def scale_for(height: int) -> int:
    """How often a frame's pixels are repeated so that it can be seen."""
    return max(1, round(SHOWN_PIXELS / height))


def save_picture(evaluation: Evaluation, path: str | Path) -> None:
    """Originals over reconstructions, and true over generated futures, of the first few clips, as PNG."""
    rows: list[tuple[str, np.ndarray]] = []
    for clip in range(min(CLIPS, len(evaluation.clips))):
        rows.append(("original", to_frames(evaluation.clips[clip, ::2])))
        rows.append(("reconstruction", to_frames(evaluation.reconstructions[clip, ::2])))
    rollouts = evaluation.rollouts
    if rollouts is not None:
        for clip in range(min(CLIPS, len(rollouts.true))):
            prompt = to_frames(rollouts.prompt[clip, -1:])
            rows.append(("true future", np.concatenate([prompt, to_frames(rollouts.true[clip])])))
            rows.append(("generated", np.concatenate([prompt, to_frames(rollouts.generated[clip])])))
    scale = scale_for(rows[0][1].shape[1])
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labelled_grid([(label, upscale(frames, scale)) for label, frames in rows])).save(path)
