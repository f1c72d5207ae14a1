"""A frozen evaluation as a file describes it (configs/eval): encoders, labelled clips, recipe, seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genie_cpp.errors import GenieError
from genie_cpp.probing.clips import Splits, action_splits, game_splits, manifest_splits
from genie_cpp.probing.compare import ProbeTable, probe_encoders
from genie_cpp.probing.sweep import ProbeRecipe
from genie_cpp.settings import find_device, find_dtype, read_settings
from genie_cpp.vision import (
    VisionTransformer,
    create_vision_transformer,
    load_jepa_run,
    load_vjepa_checkpoint,
)


@dataclass(frozen=True)
class EncoderSource:
    """A frozen encoder: of a run of phase jepa, or one of VIT_SIZES with a checkpoint of V-JEPA 2."""

    run: str = ""
    part: str = "target_encoder"
    model: str = ""
    checkpoint: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def load(self) -> VisionTransformer:
        """`options`: arguments of VisionTransformer that differ; with a run, from those of its training."""
        if bool(self.run) == bool(self.model):
            raise GenieError("an encoder is either a `run` or a `model` with a `checkpoint`")
        if self.run:
            trained = load_jepa_run(self.run, self.part)
            if not self.options:
                return trained
            changed = VisionTransformer(**{**trained._arguments, **self.options})
            changed.load_state_dict(trained.state_dict())
            return changed.eval()
        if not self.checkpoint:
            raise GenieError(f"the encoder {self.model} has no `checkpoint`; random weights say nothing")
        encoder = create_vision_transformer(self.model, **self.options)
        load_vjepa_checkpoint(encoder, self.checkpoint)
        return encoder.eval()


@dataclass(frozen=True)
class ClipSource:
    """Labelled clips. kind "manifests": two of V-JEPA 2's files. "games": video files, the class of a clip is
    its file. "actions": a video file with recorded actions. Games and actions are split by episode."""

    kind: str
    training: str = ""
    validation: str = ""
    paths: list[str] = field(default_factory=list)
    frames: int = 16
    frame_step: int = 4
    size: int = 256
    limit: int | None = None
    counts: tuple[int, ...] = (400, 200, 400)
    split_seed: int = 0

    def splits(self) -> Splits:
        """Opens them."""
        if self.kind == "manifests":
            if not (self.training and self.validation):
                raise GenieError("clips of kind manifests need `training` and `validation`")
            return manifest_splits(
                self.training, self.validation, self.frames, self.frame_step, self.size, self.limit
            )
        if len(self.counts) != 3 or min(self.counts) < 1:
            raise GenieError(f"counts are clips of training, selection and test, got {list(self.counts)}")
        counts = (self.counts[0], self.counts[1], self.counts[2])
        if self.kind == "games":
            return game_splits(self.paths, self.frames, counts, self.split_seed)
        if self.kind == "actions" and len(self.paths) == 1:
            return action_splits(self.paths[0], self.frames, counts, self.split_seed)
        if self.kind == "actions":
            raise GenieError(f"clips of kind actions come from one file, got {len(self.paths)}")
        raise GenieError(f"the kind of clips must be manifests, games or actions, got {self.kind!r}")


@dataclass(frozen=True)
class Study:
    """What `genie-cpp probe` runs."""

    clips: dict[str, ClipSource]
    encoders: dict[str, EncoderSource]
    probe: ProbeRecipe = field(default_factory=ProbeRecipe)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    device: str = "auto"
    dtype: str = "auto"
    cache: str = ""


def _make(source: EncoderSource, dtype: torch.dtype) -> VisionTransformer:
    return source.load().to(dtype)


def run_study(study: Study, progress: Callable[[str], None] | None = None) -> ProbeTable:
    """Each task's encoders under the same probes."""
    device = find_device(study.device)
    dtype = find_dtype(study.dtype, device)
    encoders = {name: partial(_make, source, dtype) for name, source in study.encoders.items()}
    if not encoders or not study.clips:
        raise GenieError("a study needs at least one encoder and one source of clips")
    table = ProbeTable()
    for task, source in study.clips.items():
        probe_encoders(
            encoders, task, source.splits(), study.probe, study.seeds, device, study.cache or None,
            table, progress,
        )  # fmt: skip
    return table


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """A study from a YAML file (configs/eval)."""
    return read_settings(Study, path, overrides)
