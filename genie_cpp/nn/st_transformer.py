"""The factored space-time transformer: TorchWM's `world_models/blocks/st_transformer.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from genie_cpp.adoption import Module

Layer = str | type[torch.nn.Module]

_LAYER_NAMES: dict[type[torch.nn.Module], str] = {
    torch.nn.GELU: "gelu",
    torch.nn.SiLU: "silu",
    torch.nn.ReLU: "relu",
    torch.nn.LayerNorm: "layernorm",
    torch.nn.RMSNorm: "rmsnorm",
}


def _layer_name(layer: Layer) -> str:
    """The name of an activation or norm given by name or as a torch class."""
    if isinstance(layer, str):
        return layer
    if layer not in _LAYER_NAMES:
        names = ", ".join(f"{key.__name__} ('{name}')" for key, name in _LAYER_NAMES.items())
        raise ValueError(f"{layer!r} is none of the layers the C++ blocks know: {names}")
    return _LAYER_NAMES[layer]


class _STAttention(Module):
    """What the two attentions of the ST-transformer share."""

    _class_name: str

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        head_dim: int = 0,
    ) -> None:
        super().__init__(
            self._class_name,
            {
                "dim": dim,
                "num_heads": num_heads,
                "qkv_bias": qkv_bias,
                "qk_scale": qk_scale,
                "attn_drop": attn_drop,
                "proj_drop": proj_drop,
                "head_dim": head_dim,
            },
        )


class STSpatialAttention(_STAttention):
    """Attention among the N tokens of each frame (TorchWM, `world_models/blocks/st_transformer.py`).

    Queries and keys of each head go through a LayerNorm without weights (eps 1e-6). `qk_scale` replaces
    head_dim^-0.5; `head_dim` is dim / num_heads where 0. Unlike the original, which scrambles frames and
    heads when it merges them, a frame's result depends on that frame alone.
    """

    _class_name = "STSpatialAttention"

    def forward(self, x: Tensor) -> Tensor:
        """x (B,T,N,C); same shape out."""
        return self._call(x)


class STTemporalAttention(_STAttention):
    """Attention over the T frames at each token's place (TorchWM, `world_models/blocks/st_transformer.py`).

    Arguments as STSpatialAttention.
    """

    _class_name = "STTemporalAttention"

    def forward(self, x: Tensor, causal: bool = True) -> Tensor:
        """x (B,T,N,C); same shape out. With `causal` a frame sees itself and earlier ones."""
        return self._call(x, causal)


class STMLP(Module):
    """Two linear layers with an activation between and dropout after each. `act_layer`: "gelu" (exact),
    "silu", "relu", or the torch class; hidden and output widths are in_features where absent."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Layer = "gelu",
        drop: float = 0.0,
    ) -> None:
        super().__init__(
            "STMLP",
            {
                "in_features": in_features,
                "hidden_features": in_features if hidden_features is None else hidden_features,
                "out_features": in_features if out_features is None else out_features,
                "act_layer": _layer_name(act_layer),
                "drop": drop,
            },
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) to (..., out_features)."""
        return self._call(x)


class DropPath(Module):
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382): in training drops a sample with
    probability `drop_prob` and scales the others by 1 / (1 - drop_prob)."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__("DropPath", {"drop_prob": drop_prob})

    def forward(self, x: Tensor) -> Tensor:
        """x (B,...); same shape out."""
        return self._call(x)


class STTransformerBlock(Module):
    """x + spatial attention, + temporal attention, + MLP, each on a norm of x (eps 1e-5) and through
    DropPath (TorchWM, `world_models/blocks/st_transformer.py`). `drop` acts after projections and in the
    MLP; `norm_layer` is "layernorm" or "rmsnorm"."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        act_layer: Layer = "gelu",
        norm_layer: Layer = "layernorm",
        head_dim: int = 0,
    ) -> None:
        super().__init__(
            "STTransformerBlock",
            {
                "dim": dim,
                "num_heads": num_heads,
                "mlp_ratio": mlp_ratio,
                "qkv_bias": qkv_bias,
                "qk_scale": qk_scale,
                "drop": drop,
                "attn_drop": attn_drop,
                "drop_path": drop_path,
                "act_layer": _layer_name(act_layer),
                "norm_layer": _layer_name(norm_layer),
                "head_dim": head_dim,
            },
        )

    def forward(self, x: Tensor, causal: bool = True, num_frames: int | None = None) -> Tensor:
        """x (B,T,N,C), or (B,T*N,C) with `num_frames` = T (the original silently takes 16). Same shape
        out."""
        return self._call(x, causal, num_frames)


class STTransformer(Module):
    """`depth` STTransformerBlocks and a final LayerNorm (TorchWM, `world_models/blocks/st_transformer.py`;
    the factored attention of Xu et al. 2020, arXiv 2001.02908, as Genie uses it, arXiv 2402.15391).

    Drop path rates grow linearly from 0 to `drop_path_rate`. `gradient_checkpointing` recomputes each
    block in backward (training only). `head_dim` is dim / num_heads where 0.
    """

    def __init__(
        self,
        num_frames: int = 16,
        num_patches_per_frame: int = 256,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        gradient_checkpointing: bool = False,
        head_dim: int = 0,
    ) -> None:
        super().__init__(
            "STTransformer",
            {
                "num_frames": num_frames,
                "num_patches_per_frame": num_patches_per_frame,
                "dim": dim,
                "depth": depth,
                "num_heads": num_heads,
                "mlp_ratio": mlp_ratio,
                "qkv_bias": qkv_bias,
                "qk_scale": qk_scale,
                "drop_rate": drop_rate,
                "attn_drop_rate": attn_drop_rate,
                "drop_path_rate": drop_path_rate,
                "gradient_checkpointing": gradient_checkpointing,
                "head_dim": head_dim,
            },
        )

    def forward(self, x: Tensor, causal: bool = True) -> Tensor:
        """x (B,T,N,C), or (B,T*N,C) with N = num_patches_per_frame. Same shape out."""
        return self._call(x, causal)


def create_st_transformer(
    num_frames: int = 16,
    patch_size: int = 4,
    img_size: int = 64,
    dim: int = 768,
    depth: int = 12,
    num_heads: int = 12,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    gradient_checkpointing: bool = False,
) -> STTransformer:
    """An STTransformer for square images: (img_size / patch_size)^2 tokens a frame."""
    if patch_size < 1 or img_size < 1 or img_size % patch_size:
        raise ValueError(f"img_size={img_size} is not divisible into patches of patch_size={patch_size}")
    return STTransformer(
        num_frames=num_frames,
        num_patches_per_frame=(img_size // patch_size) ** 2,
        dim=dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
        drop_rate=drop_rate,
        attn_drop_rate=attn_drop_rate,
        drop_path_rate=drop_path_rate,
        gradient_checkpointing=gradient_checkpointing,
    )
