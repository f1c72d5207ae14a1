"""Steps of masked latent prediction with full and area attention, in turn, on the same clips and masks."""

from __future__ import annotations

import copy
import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genie_cpp import _C
from genie_cpp.ablation.flops import Grid, area_sizes, stack_flops
from genie_cpp.ablation.memory import MIB, PeakMemory, bytes_of
from genie_cpp.ablation.settings import Ablation, Resolution
from genie_cpp.config_values import as_config
from genie_cpp.errors import GenieError
from genie_cpp.probing.features import encoder_input
from genie_cpp.vision import VisionPredictor, VisionTransformer, create_vision_transformer

COLUMNS = [
    "resolution", "config", "model", "crop_size", "num_frames", "batch_size", "total_tokens",
    "visible_tokens", "num_steps", "dtype", "device", "final_loss", "avg_step_ms", "peak_mem_mb",
    "throughput", "flop_bound",
    "best_step_ms", "target_ms", "encoder_ms", "predictor_ms", "backward_ms", "status",
]  # fmt: skip
CONFIGS = ("baseline", "area")
MOMENTUM = 0.998
LEARNING_RATE = 1e-4
PARTS = ("target_ms", "encoder_ms", "predictor_ms", "backward_ms")
Masks = list[tuple[Tensor, Tensor]]  # seen, hidden


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception means that there is no memory left, on a GPU or a CPU."""
    text = str(error).lower()
    known = ("out of memory", "can't allocate memory", "not enough memory", "alloc_cpu")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in text for words in known)
    )


def token_grid(settings: Ablation, resolution: Resolution) -> Grid:
    """Tokens of a clip: tubelets of time, rows, columns."""
    patch = int(settings.model_options.get("patch_size", 16))
    tubelet = int(settings.model_options.get("tubelet_size", 2))
    size, frames = resolution.crop_size, resolution.num_frames
    if size % patch or frames % tubelet or size < patch or frames < tubelet:
        raise GenieError(
            f"resolution {resolution.name} doesn't divide into tubelets of {tubelet} frames of {patch} x "
            f"{patch} pixels"
        )
    return frames // tubelet, size // patch, size // patch


@dataclass
class Side:
    """One configuration: its models, optimizer, and the times of its steps in ms."""

    name: str
    encoder: VisionTransformer
    target: VisionTransformer
    predictor: VisionPredictor | None
    device: torch.device
    dtype: torch.dtype
    memory: PeakMemory
    times: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PARTS})
    losses: list[float] = field(default_factory=list)
    status: str = "ok"

    def __post_init__(self) -> None:
        models = [self.encoder, *([self.predictor] if self.predictor else [])]
        self.parameters = [p for model in models for p in model.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=LEARNING_RATE)

    def held(self) -> int:
        """Bytes of weights and optimizer state: what stays between steps."""
        state = [t for entry in self.optimizer.state.values() for t in entry.values() if t.dim() > 0]
        return bytes_of([*self.parameters, *self.target.parameters(), *state])

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def step(self, video: Tensor, masks: Masks) -> None:
        """One optimizer step, timed."""
        self.memory.start()
        marks = [self.now()]
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            with torch.no_grad():
                wanted = self.target(video)
                assert isinstance(wanted, Tensor)
                wanted = torch.nn.functional.layer_norm(wanted.float(), wanted.shape[2:])
            marks.append(self.now())
            outputs = [self.encoder(video, seen) for seen, _ in masks] if masks else [self.encoder(video)]
            marks.append(self.now())
            losses = []
            for kind, output in enumerate(outputs):
                assert isinstance(output, Tensor)
                answer, aim = output, wanted
                if self.predictor is not None:
                    seen, hidden = masks[kind]
                    answer = self.predictor(output, seen, hidden, kind)
                    aim = wanted.gather(1, hidden[..., None].expand(-1, -1, wanted.shape[2]))
                losses.append(torch.nn.functional.l1_loss(answer.float(), aim))
            loss = torch.stack(losses).mean()
            marks.append(self.now())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for kept, new in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
                kept.lerp_(new, 1 - MOMENTUM)
        marks.append(self.now())
        self.memory.stop()
        self.losses.append(float(loss.detach()))
        self.times.append(1e3 * (marks[-1] - marks[0]))
        for name, begin, end in zip(PARTS, marks, marks[1:], strict=False):
            self.parts[name].append(1e3 * (end - begin))


def make_side(
    settings: Ablation, resolution: Resolution, name: str, device: torch.device, dtype: torch.dtype
) -> Side:
    """A configuration's models; those of one resolution start from the same weights."""
    areas = {
        "use_area_attention": name == "area",
        "area_spatial_splits": settings.spatial_splits,
        "area_temporal_splits": settings.temporal_splits,
    }
    torch.manual_seed(0)
    encoder = create_vision_transformer(settings.model, **{**settings.model_options, **areas})
    predictor = None
    if resolution.masked:
        options = {key: encoder._arguments[key] for key in ("patch_size", "tubelet_size", "embed_dim")}
        size = (resolution.crop_size, resolution.crop_size)
        predictor = VisionPredictor(
            img_size=size, num_frames=resolution.num_frames,
            **{**options, **settings.predictor_options, **areas},
        ).to(device)  # fmt: skip
    target = copy.deepcopy(encoder).to(device).requires_grad_(False)
    return Side(name, encoder.to(device), target, predictor, device, dtype, PeakMemory(device))


def _step_flops(side: Side, masks: Masks, grid: Grid, settings: Ablation, batch: int, areas: bool) -> float:
    """Operations of a step: the target's forward pass, and three times those of encoder and predictor."""
    splits = (settings.spatial_splits, settings.temporal_splits)

    def stack(model: VisionTransformer | VisionPredictor, ids: Tensor) -> float:
        width = model._arguments["predictor_embed_dim" if isinstance(model, VisionPredictor) else "embed_dim"]
        depth, chosen = model._arguments["depth"], model._arguments["area_attention_layers"]
        first, end = chosen or (0, depth * 3 // 4)
        inside = end - first if areas else 0
        return stack_flops(
            area_sizes(ids, grid, *splits), width, depth, inside, model._arguments["mlp_ratio"]
        )

    everything = torch.arange(math.prod(grid)).expand(batch, -1)
    total = stack(side.target, everything)
    if not masks:
        return total + 3 * stack(side.encoder, everything)
    for seen, hidden in masks:
        total += 3 * stack(side.encoder, seen.cpu())
        if side.predictor is not None:
            total += 3 * stack(side.predictor, torch.cat([seen, hidden], 1).cpu())
    return total


def read_clips(path: str | Path, resolution: Resolution, count: int) -> list[Tensor]:
    """Up to `count` clips of a video file's training split, scaled to the resolution, uint8 (T,H,W,3)."""
    size = resolution.crop_size
    data = {"num_frames": resolution.num_frames, "height": size, "width": size}
    dataset = _C.ClipDataset(_C.VideoFile(str(path)), as_config({"data": data}), "training")
    if len(dataset) == 0:
        raise GenieError(f"{path}: no episode has {resolution.num_frames} frames for the sweep")
    return [torch.as_tensor(dataset.get(index)[0]) for index in dataset.spread(count)]


def sweep_resolution(
    settings: Ablation,
    resolution: Resolution,
    data: str | Path,
    device: torch.device,
    dtype: torch.dtype,
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Rows of COLUMNS, one a configuration. One without memory for it is a row too."""
    grid = token_grid(settings, resolution)
    clips = read_clips(data, resolution, 8)
    config = as_config({"jepa": settings.training.get("jepa", {})})
    batch, sides, rows = resolution.batch_size, {}, []
    visible, bound = math.prod(grid), math.nan
    failed: dict[str, str] = {}
    for name in CONFIGS:
        try:
            sides[name] = make_side(settings, resolution, name, device, dtype)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failed[name] = "out of memory"
    # One step more than is counted: the first one warms up.
    for step in range(settings.num_steps + 1):
        numbers = [step * batch + i for i in range(batch)]
        frames = torch.stack([clips[number % len(clips)] for number in numbers])
        masks = []
        if resolution.masked:
            drawn = _C.draw_jepa_masks(config, grid, numbers, 0)
            masks = [(seen.to(device), hidden.to(device)) for seen, hidden in drawn]
            visible = masks[0][0].shape[1]
        video = encoder_input(frames).to(device)
        for name in CONFIGS if step % 2 == 0 else CONFIGS[::-1]:
            side = sides.get(name)
            if side is None:
                continue
            try:
                side.step(video, masks)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failed[name] = "out of memory"
                del sides[name], side
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
        if step == 0 and sides:
            any_side = next(iter(sides.values()))
            flops = [_step_flops(any_side, masks, grid, settings, batch, areas) for areas in (False, True)]
            bound = flops[0] / flops[1]
    for name in CONFIGS:
        row = {
            "resolution": resolution.name, "config": name, "model": settings.model,
            "crop_size": resolution.crop_size, "num_frames": resolution.num_frames, "batch_size": batch,
            "total_tokens": math.prod(grid), "visible_tokens": visible, "num_steps": settings.num_steps,
            "dtype": str(dtype).removeprefix("torch."), "device": device.type, "flop_bound": bound,
            "status": failed.get(name, "ok"),
        }  # fmt: skip
        if name in sides:
            side = sides[name]
            mean = statistics.mean(side.times[1:])
            row |= {part: statistics.mean(times[1:]) for part, times in side.parts.items()}
            # Both configurations are in memory: the other one's models are not this one's cost.
            others = sum(other.held() for other in sides.values() if other is not side)
            row |= {"final_loss": side.losses[-1], "avg_step_ms": mean, "best_step_ms": min(side.times[1:]),
                    "peak_mem_mb": (side.memory.peak - others) / MIB,
                    "throughput": 1e3 * batch / mean}  # fmt: skip
        rows.append({column: row.get(column, "") for column in COLUMNS})
        say(f"  {resolution.name} {name}: {row['status']}, {row.get('avg_step_ms', math.nan):.1f} ms a step")
    return rows
