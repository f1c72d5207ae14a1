"""Attention with register-aware rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genie_cpp.adoption import Module


class ViT5Attention(Module):
    """Self-attention with register-aware 2-D rotary positions (NVIDIA nvSubquadratic,
    `nvsubquadratic/modules/vit5_attention.py`).

    Tokens: [patches row by row, CLS if has_cls, registers], the registers on a square grid of their own.
    `qk_norm`: None, "rmsnorm" or "layernorm", with a learned weight of head_dim, float32 inside, eps
    1e-6. `scale`: head_dim^-0.5 where None. `init_fn_*` fill the projections' weights in place and zero
    their biases. The tables `rope_cos` and `rope_sin` stay float32 in a bfloat16 module and become
    float64 in a float64 one.
    """

    def __init__(
        self,
        hidden_dim: int,
        num_heads: int,
        num_patches_h: int,
        num_patches_w: int,
        num_registers: int = 4,
        has_cls: bool = True,
        qk_norm: str | None = None,
        rope_base: float = 10000.0,
        reg_rope_base: float = 100.0,
        attn_dropout: float = 0.0,
        proj_dropout: float = 0.0,
        qkv_bias: bool = False,
        out_proj_bias: bool = False,
        scale: float | None = None,
        init_fn_qkv_proj: Callable[[Tensor], object] | None = None,
        init_fn_out_proj: Callable[[Tensor], object] | None = None,
    ) -> None:
        super().__init__(
            "ViT5Attention",
            {
                "hidden_dim": hidden_dim,
                "num_heads": num_heads,
                "num_patches_h": num_patches_h,
                "num_patches_w": num_patches_w,
                "num_registers": num_registers,
                "has_cls": has_cls,
                "qk_norm": qk_norm,
                "rope_base": rope_base,
                "reg_rope_base": reg_rope_base,
                "attn_dropout": attn_dropout,
                "proj_dropout": proj_dropout,
                "qkv_bias": qkv_bias,
                "out_proj_bias": out_proj_bias,
                "scale": scale,
            },
        )
        layer: Any
        for layer, initialize in ((self.qkv, init_fn_qkv_proj), (self.proj, init_fn_out_proj)):
            if initialize is not None:
                with torch.no_grad():
                    initialize(layer.weight)
                    if layer.bias is not None:
                        layer.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """x (B,T,hidden_dim), T = patches + CLS + registers, in the module's dtype (any under autocast).
        Same shape out."""
        return self._call(x)

    def flop_count(self, num_tokens: int, inference: bool = False) -> int:
        """Floating-point operations of one sample of T tokens, D = hidden_dim: 8TD^2 + 4T^2D + 4TD, and
        2*3TD for norms of queries and keys (the original counts one head of these). `inference` makes no
        difference."""
        return self._handle.flop_count(num_tokens)

    def extra_repr(self) -> str:
        a = self._arguments
        return (
            f"hidden_dim={a['hidden_dim']}, num_heads={a['num_heads']}, qk_norm={a['qk_norm'] is not None}, "
            f"num_registers={a['num_registers']}, patches=({a['num_patches_h']}x{a['num_patches_w']}), "
            f"rope_base={float(a['rope_base'])}, reg_rope_base={float(a['reg_rope_base'])}"
        )
