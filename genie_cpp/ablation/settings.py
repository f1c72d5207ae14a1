"""What an ablation measures, and its presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genie_cpp.errors import GenieError
from genie_cpp.probing.study import ClipSource
from genie_cpp.probing.sweep import ProbeRecipe
from genie_cpp.settings import from_mapping, read_settings
from genie_cpp.vision import VIT_SIZES


@dataclass(frozen=True)
class Resolution:
    """Clips of the sweep: num_frames frames of crop_size x crop_size pixels; unmasked without predictor."""

    crop_size: int
    num_frames: int
    batch_size: int
    masked: bool = True

    @property
    def name(self) -> str:
        """As in the column `resolution`."""
        return f"{self.crop_size}px_{self.num_frames}f" + ("" if self.masked else "_unmasked")


@dataclass(frozen=True)
class Ablation:
    """All that a run depends on.

    The sweep measures `model` (one of VIT_SIZES, changed by `model_options`) with a predictor. `training` is
    a configuration of phase jepa for the encoders that are probed: pretrained for pretrain_steps unless
    `checkpoint` (V-JEPA 2's) is given, then fine-tuned with areas and, for comparison, without. `data` is the
    video file for both; without it setup records `games`, or with games [] makes synthetic worlds.
    """

    model: str = "vit_tiny"
    model_options: dict[str, Any] = field(default_factory=dict)
    predictor_options: dict[str, Any] = field(default_factory=dict)
    resolutions: list[Resolution] = field(default_factory=list)
    num_steps: int = 100
    layer_repeats: int = 5
    spatial_splits: int = 2
    temporal_splits: int = 2
    splits: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    training: dict[str, Any] = field(default_factory=dict)
    pretrain_steps: int = 200
    finetune_steps: int = 50
    checkpoint: str = ""
    data: str = ""
    games: list[str] = field(default_factory=list)
    game_frames: int = 3000
    clips: dict[str, ClipSource] = field(default_factory=dict)
    probe: ProbeRecipe = field(default_factory=ProbeRecipe)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    device: str = "auto"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if self.model not in VIT_SIZES:
            raise GenieError(f"model must be one of {', '.join(VIT_SIZES)}, got {self.model!r}")
        if not self.resolutions or not self.splits or not self.seeds:
            raise GenieError("resolutions, splits and seeds must have at least one entry each")
        if min(self.num_steps, self.layer_repeats, *self.splits) < 1:
            raise GenieError("num_steps, layer_repeats and splits must be at least 1")
        if len({r.name for r in self.resolutions}) < len(self.resolutions):
            raise GenieError("each resolution may stand in the sweep once")


GAMES = ["boxing", "breakout", "freeway", "pong", "space_invaders"]
TRAINING = {
    "data": {"num_frames": 8, "height": 64, "width": 64, "num_workers": 1},
    "jepa": {
        "encoder": {"patch_size": 8, "depth": 6, "dim": 192, "heads": 6},
        "predictor": {"depth": 3, "dim": 96, "heads": 3},
        "masks": {"hidden_share": 0.75},
        "momentum": 0.99,
    },
    "training": {
        "checkpoint_every": 50,
        "validate_every": 100,
        "jepa": {
            "batch_size": 12, "learning_rate": 1e-3, "final_learning_rate": 1e-5, "warmup_steps": 20,
            "weight_decay": 0.04, "final_weight_decay": 0.1,
        },
    },
}  # fmt: skip
TINY_TRAINING = {
    "data": {"num_frames": 4, "height": 16, "width": 16, "num_workers": 1},
    "jepa": {
        "encoder": {"patch_size": 4, "depth": 2, "dim": 24, "heads": 2},
        "predictor": {"depth": 1, "dim": 16, "heads": 2},
        "momentum": 0.9,
    },
    "training": {
        "checkpoint_every": 4,
        "validate_every": 100,
        "validation_clips": 2,
        "jepa": {"batch_size": 2, "warmup_steps": 1},
    },
}
PAPER_TRAINING = {
    "data": {"num_frames": 16, "height": 256, "width": 256, "num_workers": 4},
    "jepa": {
        "encoder": {"depth": 24, "dim": 1024, "heads": 16, "gradient_checkpointing": True},
        "predictor": {"depth": 12, "dim": 384, "heads": 12},
        "momentum": 0.99925,
        "final_momentum": 0.99925,
    },
    "training": {"dtype": "bfloat16", "checkpoint_every": 100, "jepa": {"batch_size": 4, "warmup_steps": 0}},
}

# 512, 1,152, 2,048 and 4,608 tokens.
MASKED = [
    {"crop_size": 256, "num_frames": 4, "batch_size": 4},
    {"crop_size": 384, "num_frames": 4, "batch_size": 2},
    {"crop_size": 256, "num_frames": 16, "batch_size": 1},
    {"crop_size": 384, "num_frames": 16, "batch_size": 1},
]
PRESETS: dict[str, dict[str, Any]] = {
    # Seconds, to see every phase work.
    "tiny": {
        "model": "vit_tiny",
        "model_options": {"patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2},
        "predictor_options": {"predictor_embed_dim": 16, "depth": 1, "num_heads": 2},
        "resolutions": [
            {"crop_size": 16, "num_frames": 4, "batch_size": 2},
            {"crop_size": 24, "num_frames": 4, "batch_size": 1, "masked": False},
        ],
        "num_steps": 2,
        "layer_repeats": 1,
        "splits": [1, 2],
        "training": TINY_TRAINING,
        "pretrain_steps": 4,
        "finetune_steps": 2,
        "game_frames": 60,
        "clips": {"worlds": {"kind": "games", "frames": 4, "counts": [16, 8, 8]}},
        "probe": {"epochs": 1, "learning_rates": [1e-3], "depth": 1, "num_heads": 2},
        "seeds": [0],
        "device": "cpu",
    },
    # ViT-tiny, few steps: what two cores get through.
    "cpu": {
        "model": "vit_tiny",
        "predictor_options": {"predictor_embed_dim": 96, "depth": 4, "num_heads": 3},
        "resolutions": MASKED,
        "num_steps": 4,
        "layer_repeats": 3,
        "training": TRAINING,
        "pretrain_steps": 300,
        "finetune_steps": 80,
        "games": GAMES,
        "clips": {
            "Freeway's actions": {"kind": "actions", "frames": 8, "counts": [300, 100, 300]},
            "games, 20 labelled clips": {"kind": "games", "frames": 8, "counts": [20, 50, 150]},
        },
        "probe": {"learning_rates": [3e-3, 1e-3, 3e-4], "depth": 1, "num_heads": 6},
        "device": "cpu",
    },
    # The sizes of the pull request, with V-JEPA 2's ViT-L: set checkpoint, data and the clips' manifests.
    "paper": {
        "model": "vit_large",
        "predictor_options": {"predictor_embed_dim": 384, "depth": 12, "num_heads": 12},
        "resolutions": [*MASKED, {"crop_size": 384, "num_frames": 64, "batch_size": 1, "masked": False}],
        "training": PAPER_TRAINING,
        "finetune_steps": 1000,
        "games": GAMES,
        "game_frames": 20000,
        "clips": {"games": {"kind": "games", "frames": 16, "counts": [1000, 300, 1000]}},
    },
}


def load_ablation(
    preset: str = "cpu", config: str | Path | None = None, overrides: Sequence[str] = ()
) -> Ablation:
    """A preset, with the keys of a YAML file and "key=value" entries in place of its own."""
    if preset not in PRESETS:
        raise GenieError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    base = from_mapping(Ablation, PRESETS[preset], f"preset {preset}")
    return read_settings(Ablation, config, overrides, base=dataclasses.asdict(base))
