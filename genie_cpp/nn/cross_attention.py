"""Attention to features of another stream."""

from __future__ import annotations

from torch import Tensor

from genie_cpp.adoption import Module


class CrossAttention(Module):
    """Attention of x to image features (KempnerForge, `kempnerforge/model/cross_attention.py`), with
    grouped queries: query head i uses key and value head i // (n_heads / n_kv_heads). No biases,
    positions or causality; the output projection starts at zero. A sample whose mask is all False gets
    exactly 0 and gives no gradient (later versions of the original attend to everything instead)."""

    def __init__(self, dim: int, n_heads: int, n_kv_heads: int, head_dim: int | None = None) -> None:
        super().__init__(
            "CrossAttention", {"dim": dim, "n_heads": n_heads, "n_kv_heads": n_kv_heads, "head_dim": head_dim}
        )

    def forward(self, x: Tensor, image_features: Tensor, image_mask: Tensor | None = None) -> Tensor:
        """x (B,S,dim), image_features (B,N,dim) with N >= 1, image_mask bool (B,N), True = attend;
        (B,S,dim) out."""
        return self._call(x, image_features, image_mask)


class CrossAttentionBlock(Module):
    """x + cross-attention, then + MLP, each on a norm of x (eps 1e-5): the identity at its start,
    because both output projections are zero (KempnerForge, `kempnerforge/model/cross_attention.py`).
    `norm_type`: "rmsnorm" or "layernorm". `activation`: "silu" (SwiGLU), "gelu" or "relu" (plain)."""

    def __init__(
        self,
        dim: int,
        n_heads: int,
        n_kv_heads: int,
        ffn_hidden_dim: int,
        norm_type: str = "rmsnorm",
        activation: str = "silu",
    ) -> None:
        super().__init__(
            "CrossAttentionBlock",
            {
                "dim": dim,
                "n_heads": n_heads,
                "n_kv_heads": n_kv_heads,
                "ffn_hidden_dim": ffn_hidden_dim,
                "norm_type": norm_type,
                "activation": activation,
            },
        )

    def forward(self, x: Tensor, image_features: Tensor, image_mask: Tensor | None = None) -> Tensor:
        """As CrossAttention."""
        return self._call(x, image_features, image_mask)
