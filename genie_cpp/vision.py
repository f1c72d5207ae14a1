"""The V-JEPA 2 style video encoder and predictor (arXiv 2506.09985), with spatiotemporal area attention.

Shapes: B clips (B,C,T,H,W), N tokens a clip (tubelet by tubelet in time, then row by row), K of them kept by
a mask, D the width. Constructor arguments and weight names are those of facebookresearch/vjepa2, so that its
checkpoints load.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genie_cpp import _C
from genie_cpp.adoption import Module
from genie_cpp.config_values import values
from genie_cpp.errors import GenieError

__all__ = [
    "VIT_SIZES",
    "LoadReport",
    "VisionPredictor",
    "VisionTransformer",
    "create_vision_transformer",
    "export_vjepa_checkpoint",
    "load_jepa_run",
    "load_vjepa_checkpoint",
]

Masks = Tensor | Sequence[Tensor]

VIT_SIZES: dict[str, dict[str, Any]] = {
    "vit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "vit_huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
    "vit_giant": {"embed_dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11},
    "vit_giant_xformers": {"embed_dim": 1408, "depth": 40, "num_heads": 22, "mlp_ratio": 48 / 11},
}
"""Width, depth and heads of V-JEPA 2's encoders; the published ViT-g is vit_giant_xformers."""


def _list(masks: Masks | None) -> list[Tensor]:
    if masks is None:
        return []
    return [masks] if isinstance(masks, Tensor) else list(masks)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


class VisionTransformer(Module):
    """V-JEPA 2's video encoder (facebookresearch/vjepa2, `src/models/vision_transformer.py`): tubelet
    embedding, pre-norm blocks with 3-D rotary positions, a final LayerNorm.

    With `use_area_attention` the layers `area_attention_layers` = (start, end), end excluded (default: the
    first three quarters), attend inside areas: `area_temporal_splits` bands of frames times
    `area_spatial_splits` bands of rows; their merged heads are multiplied by `area_residual_scale` before
    the output projection. Areas are exact however many tokens a mask leaves in each (those of pull request
    121 are not), and tokens are sorted once for all layers.

    `out_layers`: forward gives a list with the normalised output of each of these layers.
    `use_activation_checkpointing` recomputes each block in backward. A video may have any size that divides
    into tubelets; positions are rotary, so that nothing is tied to one.
    """

    def __init__(
        self,
        patch_size: int = 16,
        tubelet_size: int = 2,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        out_layers: Sequence[int] | None = None,
        use_activation_checkpointing: bool = False,
        use_area_attention: bool = False,
        area_spatial_splits: int = 2,
        area_temporal_splits: int = 2,
        area_attention_layers: Sequence[int] | None = None,
        area_residual_scale: float = 1.0,
    ) -> None:
        super().__init__(
            "VisionTransformer",
            {
                "patch_size": patch_size,
                "tubelet_size": tubelet_size,
                "in_chans": in_chans,
                "embed_dim": embed_dim,
                "depth": depth,
                "num_heads": num_heads,
                "mlp_ratio": mlp_ratio,
                "qkv_bias": qkv_bias,
                "qk_scale": qk_scale,
                "drop_rate": drop_rate,
                "drop_path_rate": drop_path_rate,
                "use_activation_checkpointing": use_activation_checkpointing,
                "use_area_attention": use_area_attention,
                "area_spatial_splits": area_spatial_splits,
                "area_temporal_splits": area_temporal_splits,
                "area_attention_layers": _interval(area_attention_layers),
                "area_residual_scale": area_residual_scale,
                "out_layers": list(out_layers or []),
            },
        )

    @property
    def embed_dim(self) -> int:
        """D."""
        return int(self._arguments["embed_dim"])

    def forward(self, video: Tensor, masks: Masks | None = None) -> Tensor | list[Tensor]:
        """video (B,C,T,H,W) to (B,N,D).

        `masks`: the token ids to keep, int64 (B,K), in any order; the result is (B,K,D) in that order. A list
        of M masks of one K gives (M*B,K,D), mask by mask. With `out_layers` a list of such tensors. Raises
        ValueError for shapes that don't fit, TypeError for other types, IndexError (on the CPU) for an id
        outside the grid.
        """
        if self._arguments["out_layers"]:
            outputs: list[Tensor] = self._method("features")(video, _list(masks))
            return outputs
        result: Tensor = self._call(video, _list(masks))
        return result


class VisionPredictor(Module):
    """V-JEPA 2's predictor (facebookresearch/vjepa2, `src/models/predictor.py`): from the encoder's outputs
    at the positions of one mask, its outputs at those of another.

    `img_size` and `num_frames` give the grid of tokens. The original's `use_mask_tokens` is always on. Area
    attention as in VisionTransformer.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = (224, 224),
        patch_size: int = 16,
        num_frames: int = 16,
        tubelet_size: int = 2,
        embed_dim: int = 768,
        predictor_embed_dim: int = 384,
        depth: int = 6,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        num_mask_tokens: int = 2,
        use_activation_checkpointing: bool = False,
        use_area_attention: bool = False,
        area_spatial_splits: int = 2,
        area_temporal_splits: int = 2,
        area_attention_layers: Sequence[int] | None = None,
        area_residual_scale: float = 1.0,
    ) -> None:
        height, width = _pair(img_size)
        if min(patch_size, tubelet_size) < 1:
            raise ValueError(f"patch_size={patch_size} and tubelet_size={tubelet_size} must be at least 1")
        super().__init__(
            "VisionPredictor",
            {
                "grid": (num_frames // tubelet_size, height // patch_size, width // patch_size),
                "embed_dim": embed_dim,
                "predictor_embed_dim": predictor_embed_dim,
                "depth": depth,
                "num_heads": num_heads,
                "mlp_ratio": mlp_ratio,
                "qkv_bias": qkv_bias,
                "qk_scale": qk_scale,
                "drop_rate": drop_rate,
                "drop_path_rate": drop_path_rate,
                "num_mask_tokens": num_mask_tokens,
                "use_activation_checkpointing": use_activation_checkpointing,
                "use_area_attention": use_area_attention,
                "area_spatial_splits": area_spatial_splits,
                "area_temporal_splits": area_temporal_splits,
                "area_attention_layers": _interval(area_attention_layers),
                "area_residual_scale": area_residual_scale,
            },
        )

    def forward(self, x: Tensor, masks_x: Masks, masks_y: Masks, mask_index: int = 1) -> Tensor:
        """x (R,K,embed_dim), the encoder's output for masks_x, to (R,P,embed_dim) for the tokens of masks_y,
        in their order. Masks are token ids (B,K) and (B,P), or lists of M of them; R = M*B. `mask_index`
        modulo num_mask_tokens chooses the mask token."""
        result: Tensor = self._call(x, _list(masks_x), _list(masks_y), mask_index)
        return result


def _interval(layers: Sequence[int] | None) -> tuple[int, int] | None:
    if layers is None:
        return None
    if len(layers) != 2:
        raise ValueError(f"area_attention_layers is (start, end), got {tuple(layers)}")
    return layers[0], layers[1]


def create_vision_transformer(name: str, **options: Any) -> VisionTransformer:
    """The encoder VIT_SIZES[name]; `options` as VisionTransformer takes them; they come first."""
    if name not in VIT_SIZES:
        raise ValueError(f"unknown encoder {name!r}; there are: {', '.join(VIT_SIZES)}")
    return VisionTransformer(**{**VIT_SIZES[name], **options})


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint: `section` of it was read; `loaded`, `missing`, `unexpected` and
    `mismatched` (another shape) are names of weights; `skipped` are its other sections."""

    section: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} weights from section '{self.section}'"]
        for name in ("missing", "unexpected", "mismatched"):
            names: list[str] = getattr(self, name)
            if names:
                lines.append(f"{len(names)} {name}: {', '.join(names[:8])}{', ...' if names[8:] else ''}")
        if self.skipped:
            lines.append(f"not read: {', '.join(self.skipped)}")
        return "; ".join(lines)


def _stripped(name: str) -> str:
    for prefix in ("module.", "backbone."):
        name = name.removeprefix(prefix)
    return name


def _section(checkpoint: Mapping[str, Any], wanted: str | None, model: torch.nn.Module, path: str) -> str:
    sections = [key for key, value in checkpoint.items() if isinstance(value, Mapping)]
    if wanted is not None:
        if wanted not in sections:
            raise GenieError(f"{path}: has no section '{wanted}'; there are: {', '.join(sections) or 'none'}")
        return wanted
    usual = ["predictor"] if isinstance(model, VisionPredictor) else ["target_encoder", "encoder"]
    for name in usual:
        if name in sections:
            return name
    if any(isinstance(value, Tensor) for value in checkpoint.values()):
        return ""  # the file is the state dict itself
    raise GenieError(f"{path}: none of its sections is {' or '.join(usual)}: {', '.join(sections) or 'none'}")


def load_vjepa_checkpoint(
    model: VisionTransformer | VisionPredictor,
    path: str | os.PathLike[str],
    section: str | None = None,
    strict: bool = True,
) -> LoadReport:
    """Loads a checkpoint of V-JEPA 2 (a .pt file) into `model` and says what became of it.

    The prefixes `module.` and `backbone.` are stripped. `section` is the checkpoint's part to read; by
    default target_encoder, else encoder, for a predictor predictor; a file that is a plain state dict has
    none. Optimizer and other sections are left alone. With strict=False weights that are missing, unexpected
    or of another shape are passed over and named in the report (annealing); else they raise GenieError, and
    nothing is loaded.
    """
    name = os.fspath(path)
    checkpoint = _read_checkpoint(name)
    chosen = _section(checkpoint, section, model, name)
    source = checkpoint[chosen] if chosen else checkpoint
    weights = {_stripped(key): value for key, value in source.items() if isinstance(value, Tensor)}
    own = model.state_dict()
    fitting = {key: value for key, value in weights.items() if key in own and value.shape == own[key].shape}
    report = LoadReport(
        section=chosen,
        loaded=sorted(fitting),
        missing=sorted(own.keys() - weights.keys()),
        unexpected=sorted(weights.keys() - own.keys()),
        mismatched=sorted(key for key in weights if key in own and key not in fitting),
        skipped=sorted(key for key in checkpoint if key != chosen) if chosen else [],
    )
    if not fitting or (strict and (report.missing or report.unexpected or report.mismatched)):
        raise GenieError(f"{name}: does not fit the model: {report}")
    model.load_state_dict(fitting, strict=False)
    return report


def export_vjepa_checkpoint(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> list[str]:
    """Writes the weights of a checkpoint of V-JEPA 2 as what `jepa.initial_weights` starts from.

    encoder.*, target_encoder.* and predictor.*, as far as the checkpoint has them, prefixes stripped. Where
    it has one encoder only, that is both. Returns the names. Raises GenieError where it has none.
    """
    name = os.fspath(path)
    checkpoint = _read_checkpoint(name)
    weights = {
        f"{section}.{_stripped(key)}": value
        for section in ("encoder", "target_encoder", "predictor")
        for key, value in checkpoint.get(section, {}).items()
        if isinstance(value, Tensor)
    }
    has = [any(key.startswith(f"{part}.") for key in weights) for part in ("encoder", "target_encoder")]
    if not any(has):
        raise GenieError(
            f"{name}: has no section encoder or target_encoder; there are: {', '.join(map(str, checkpoint))}"
        )
    if has == [False, True]:
        for key in [key for key in weights if key.startswith("target_encoder.")]:
            weights[key.removeprefix("target_")] = weights[key]
    _C.save_safetensors(os.fspath(out), {key: value.contiguous() for key, value in weights.items()})
    return sorted(weights)


def _read_checkpoint(name: str) -> Mapping[str, Any]:
    try:
        checkpoint = torch.load(name, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise GenieError(f"{name}: there is no such checkpoint") from error
    except Exception as error:
        raise GenieError(f"{name}: can't be read as a torch checkpoint ({error})") from error
    if not isinstance(checkpoint, Mapping):
        raise GenieError(f"{name}: expected a dictionary of weights, got {type(checkpoint).__name__}")
    return checkpoint


def load_jepa_run(run_dir: str | os.PathLike[str], part: str = "target_encoder") -> VisionTransformer:
    """The encoder that phase jepa trained in a run directory, from its newest checkpoint, in evaluation mode.

    `part`: target_encoder or encoder. Raises GenieError where the phase is not trained.
    """
    if part not in ("target_encoder", "encoder"):
        raise GenieError(f"part must be target_encoder or encoder, got {part!r}")
    folder = os.fspath(run_dir)
    weights = _C.load_jepa_weights(folder)
    settings = values(_C.Config.load(os.path.join(folder, "config.yaml")))["jepa"]["encoder"]
    model = VisionTransformer(
        patch_size=settings["patch_size"],
        tubelet_size=settings["tubelet_size"],
        embed_dim=settings["dim"],
        depth=settings["depth"],
        num_heads=settings["heads"],
        mlp_ratio=settings["mlp_ratio"],
        use_area_attention=settings["use_area_attention"],
        area_spatial_splits=settings["area_spatial_splits"],
        area_temporal_splits=settings["area_temporal_splits"],
        area_attention_layers=settings["area_attention_layers"] or None,
        area_residual_scale=settings["area_residual_scale"],
    )
    prefix = f"{part}."
    own = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    model.load_state_dict(own)
    return model.eval()
