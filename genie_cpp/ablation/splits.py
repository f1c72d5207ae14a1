"""Spatial x temporal splits from 1x1 on: what each costs the frozen features, and how much faster it is."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genie_cpp.ablation.encoders import Say, sources, task_splits
from genie_cpp.ablation.flops import area_sizes, flop_bound
from genie_cpp.ablation.layers import fastest
from genie_cpp.ablation.settings import Ablation
from genie_cpp.probing.features import cache_features, encoder_input
from genie_cpp.probing.sweep import train_probes
from genie_cpp.vision import VisionTransformer

COLUMNS = ["task", "spatial_splits", "temporal_splits", "top1", "selection_top1", "forward_ms", "speedup",
           "flop_bound"]  # fmt: skip


def sweep_splits(
    settings: Ablation, out: Path, device: torch.device, dtype: torch.dtype, say: Say
) -> list[dict[str, Any]]:
    """Rows of COLUMNS of the last task: the full-attention encoder's weights under each split, not
    fine-tuned, probed with the first seed, and its forward pass on one clip, timed beside that without
    areas."""
    task, clips = list(task_splits(settings, out).items())[-1]
    full = sources(settings, out)["full attention"]
    models: dict[tuple[int, int], VisionTransformer] = {}
    for spatial in settings.splits:
        for temporal in settings.splits:
            options = {"use_area_attention": True, "area_spatial_splits": spatial,
                       "area_temporal_splits": temporal}  # fmt: skip
            changed = dataclasses.replace(full, options={**full.options, **options})
            models[spatial, temporal] = changed.load().to(device, dtype)
    plain = full.load().to(device, dtype)
    clip = encoder_input(clips.training.read(0)[None]).to(device, dtype)

    def run(model: VisionTransformer) -> Tensor:
        with torch.no_grad():
            result = model(clip)
        assert isinstance(result, Tensor)
        return result

    repeats = max(3, settings.layer_repeats)
    times = fastest([partial(run, model) for model in [plain, *models.values()]], repeats, device)
    arguments = plain._arguments
    patch, tubelet = arguments["patch_size"], arguments["tubelet_size"]
    grid = (clip.shape[2] // tubelet, clip.shape[3] // patch, clip.shape[4] // patch)
    ids = torch.arange(math.prod(grid))[None]
    rows = []
    for (split, model), milliseconds in zip(models.items(), times[1:], strict=True):
        first, end = model._arguments["area_attention_layers"] or (0, arguments["depth"] * 3 // 4)
        sizes = area_sizes(ids, grid, *split)[0]
        training, selection = (cache_features(model, part) for part in (clips.training, clips.selection))
        test = None if clips.test is None else cache_features(model, clips.test)
        result = train_probes(
            training, selection, test, len(clips.classes), settings.probe, settings.seeds[0], device
        )
        bound = flop_bound(sizes, arguments["embed_dim"], end - first, arguments["depth"])
        values = [task, *split, result.accuracy, result.best.selection, milliseconds, times[0] / milliseconds,
                  bound]  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
        say(f"  {split[0]} x {split[1]}: top-1 {100 * result.accuracy:.1f} %, {milliseconds:.1f} ms")
    return rows
