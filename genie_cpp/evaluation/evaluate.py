"""Evaluates a trained world model on recorded video; explain.py says how to read the figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from genie_cpp.codec import Codec
from genie_cpp.config_values import clip_length, values
from genie_cpp.errors import GenieError
from genie_cpp.evaluation import linear_tokenizer, metrics
from genie_cpp.evaluation.clips import Clips, Source, in_batches, open_source, training_source
from genie_cpp.evaluation.rollouts import PROMPT_FRAMES, ROLLOUT_FRAMES, Rollouts, roll_out, rollout_figures


@dataclass(frozen=True)
class EvaluationOptions:
    """How much is looked at. The defaults take minutes on two CPU cores for a few million weights."""

    clips: int = 64  # of the tokenizer's and dynamics' figures; actions are inferred on four times as many
    rollouts: int = 32
    draws: int = 4  # of random actions, for delta_psnr
    shuffles: int = 100  # of the true actions, for the mutual information that chance reaches
    split: str = "auto"
    batch: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clips", "rollouts", "draws", "shuffles", "batch"):
            if getattr(self, name) < 1:
                raise GenieError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found. A figure that cannot be had is None, and `notes` says why under its name."""

    figures: dict[str, Any]
    notes: dict[str, str]
    about: dict[str, Any]
    clips: torch.Tensor  # (B,T,3,H,W)
    reconstructions: torch.Tensor  # (B,T,3,H,W)
    rollouts: Rollouts | None = field(default=None)

    def write_json(self, path: str | Path) -> None:
        """Writes the figures, then `about` and `notes`."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        content = _finite({**self.figures, "about": self.about, "notes": self.notes})
        Path(path).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


@torch.no_grad()
def evaluate(
    genie: Any,
    data: str | Path,
    options: EvaluationOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluates a world model (of genie_cpp.load) on the video file `data`.

    The same options give the same figures. `progress` is called with the name of each part as it begins.
    Raises GenieError for a file that cannot be read or holds no clip of the model's length.
    """
    options = options or EvaluationOptions()
    tell = progress or (lambda _: None)
    source = open_source(data, genie.config, options.split)
    clips = source.clips(options.clips, clip_length(genie.config, "dynamics"))
    codec = Codec(genie)
    notes: dict[str, str] = {}
    about: dict[str, Any] = {
        "data": str(data),
        "split": source.split,
        "split_reason": source.reason,
        "clips": len(clips.video),
        "seed": options.seed,
        "inference": values(genie.config)["inference"],
        "action_mutual_information_unit": "bits",
    }

    tell("tokenizer")
    tokens = in_batches(codec.encode, options.batch, clips.video)
    reconstructions = in_batches(codec.decode, options.batch, tokens)
    figures = _tokenizer_figures(tokens, clips.video, reconstructions, genie.tokenizer.num_codes)

    tell("linear tokenizer")
    figures["kmeans_psnr"], about["kmeans_fitted_on"] = _linear_tokenizer_psnr(source, clips.video, options)

    tell("dynamics")
    figures |= _dynamics_figures(genie, codec, tokens, clips.video, options.batch)

    tell("rollouts")
    rollouts = None
    prompt = min(PROMPT_FRAMES, clip_length(genie.config, "dynamics") - 1)
    try:
        longer = source.clips(options.rollouts, prompt + ROLLOUT_FRAMES)
    except GenieError as error:
        for name in ("rollout_psnr", "delta_psnr"):
            figures[name], notes[name] = None, str(error)
    else:
        about |= {"rollouts": len(longer.video), "rollout_prompt_frames": prompt}
        rollouts = roll_out(genie, longer.video, prompt, options.draws, options.batch, options.seed)
        figures |= rollout_figures(rollouts, clips.video.mean((0, 1)))

    tell("actions")
    figures |= _action_figures(codec, source, notes, options)
    for name, value in figures.items():
        if value is None:
            notes.setdefault(name, "nothing in these clips changes")
    return Evaluation(figures, notes, about, clips.video, reconstructions, rollouts)


def _tokenizer_figures(
    tokens: torch.Tensor, video: torch.Tensor, reconstructions: torch.Tensor, num_codes: int
) -> dict[str, Any]:
    moved = metrics.changed_pixels(video[:, 1:], video[:, :-1])
    return {
        "tokenizer_psnr": float(metrics.psnr(reconstructions, video).mean()),
        "tokenizer_psnr_changed": metrics.pooled_psnr(reconstructions[:, 1:], video[:, 1:], moved),
        "tokenizer_ssim": float(metrics.ssim(reconstructions, video).mean()),
        "codebook_usage": metrics.codebook_usage(tokens, num_codes),
        "codebook_perplexity": metrics.perplexity(tokens, num_codes),
    }


def _linear_tokenizer_psnr(
    source: Source, video: torch.Tensor, options: EvaluationOptions
) -> tuple[float, str]:
    """PSNR of the linear tokenizer on `video`, and what it was fitted on (training episodes if any)."""
    settings = values(source.config)["tokenizer"]
    training = training_source(source)
    fitted_on, name = video, "the evaluated clips"
    if training is not None:
        fitted_on = training.clips(options.clips, video.shape[1]).video
        name = f"{values(source.config)['data']['path']} ({training.split})"
    quantizer = settings["quantizer"]
    tokenizer = linear_tokenizer.fit(
        fitted_on, settings["patch_size"], quantizer["num_codes"], quantizer["code_dim"], options.seed
    )
    reconstructions = in_batches(tokenizer.reconstruct, options.batch, video)
    return float(metrics.psnr(reconstructions, video).mean()), name


def _dynamics_figures(
    genie: Any, codec: Codec, tokens: torch.Tensor, video: torch.Tensor, batch: int
) -> dict[str, Any]:
    """Accuracy on the last frame of each clip, all of whose tokens are masked."""
    actions = in_batches(codec.infer, batch, video)
    mask = torch.zeros_like(tokens, dtype=torch.bool)
    mask[:, -1] = True

    def last_frame(tokens: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Each token's prediction and cross-entropy, (B,N,2)."""
        logits = genie.dynamics(codec.put(tokens), codec.put(actions), codec.put(mask))[:, -1].float().cpu()
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, -1].flatten(), reduction="none")
        return torch.stack([logits.argmax(-1).double(), loss.view(tokens[:, -1].shape).double()], dim=-1)

    predicted, loss = in_batches(last_frame, batch, tokens, actions, mask).unbind(-1)
    right = predicted.long() == tokens[:, -1]
    copied = tokens[:, -2] == tokens[:, -1]
    changes = ~copied
    return {
        "dynamics_accuracy": float(right.double().mean()),
        "dynamics_accuracy_changed": float(right[changes].double().mean()) if changes.any() else None,
        "dynamics_cross_entropy": float(loss.mean()),
        "dynamics_cross_entropy_changed": float(loss[changes].mean()) if changes.any() else None,
        "copy_accuracy": float(copied.double().mean()),
        "copy_accuracy_changed": 0.0 if changes.any() else None,
    }


def _action_figures(
    codec: Codec, source: Source, notes: dict[str, str], options: EvaluationOptions
) -> dict[str, Any]:
    """Mutual information between latent and recorded actions, in bits."""
    names = ("action_mutual_information", "action_mutual_information_shuffled")
    clips: Clips = source.clips(4 * options.clips, clip_length(source.config, "latent_action"))
    latent = in_batches(codec.infer, options.batch, clips.video).flatten().numpy()
    counts = np.bincount(latent, minlength=values(source.config)["latent_action"]["quantizer"]["num_codes"])
    figures: dict[str, Any] = {"latent_action_shares": (counts / counts.sum()).tolist()}
    if clips.actions is None:
        notes |= dict.fromkeys(names, "the file has no recorded actions")
        return figures | dict.fromkeys(names)
    true = clips.actions.flatten().numpy()
    rng = np.random.default_rng(options.seed)
    chance = metrics.shuffled_mutual_information(latent, true, options.shuffles, rng)
    return figures | dict(zip(names, (metrics.mutual_information(latent, true), chance), strict=True))


def _finite(value: Any) -> Any:
    """The value with None for every number JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
