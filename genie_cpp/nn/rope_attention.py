"""V-JEPA 2's attention with 3-D rotary positions, over all tokens and inside space-time areas."""

from __future__ import annotations

from torch import Tensor

from genie_cpp import _C
from genie_cpp.adoption import Module


class RoPEAttention(Module):
    """V-JEPA 2's attention with 3-D rotary positions (facebookresearch/vjepa2,
    `src/models/utils/modules.py`).

    `grid_size`: rows and columns of the token grid where a call doesn't give them. `is_causal`: a token
    sees itself and the tokens before it in the sequence. `use_sdpa=False` computes the weights
    explicitly, with the same result. Unlike the original, attn_drop is what drops attention weights, in
    training only, and qk_scale always holds.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        use_sdpa: bool = True,
        grid_size: int = 14,
        is_causal: bool = False,
    ) -> None:
        super().__init__(
            "RoPEAttention",
            {
                "dim": dim,
                "num_heads": num_heads,
                "qkv_bias": qkv_bias,
                "qk_scale": qk_scale,
                "attn_drop": attn_drop,
                "proj_drop": proj_drop,
                "use_sdpa": use_sdpa,
                "grid_size": grid_size,
                "is_causal": is_causal,
            },
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        T: int | None = None,
        H_patches: int | None = None,
        W_patches: int | None = None,
    ) -> Tensor:
        """x (B,N,C); same shape out.

        `mask`: int64 token ids (B,N) of the visible tokens, in any order, also repeated; without it the
        tokens are all of a T x H_patches x W_patches grid. `attn_mask`: bool (True: attend) or a float
        added to the scores, broadcastable to (B,heads,N,N); a row that may see nothing gives 0 before
        the output projection.
        """
        return self._call(x, mask, attn_mask, T, H_patches, W_patches)


class RoPEAreaAttention(Module):
    """Spatiotemporal area attention (facebookresearch/vjepa2, pull request 121): RoPEAttention in which a
    token sees its own area only, with the same weights.

    The grid is cut into `temporal_splits` bands of frames times `spatial_splits` bands of rows. The
    merged heads times `residual_scale` go into the output projection. Areas are exact however many
    tokens each holds: the original pads the sorted sequence and cuts it into equal chunks, so that
    tokens attend across borders.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        use_sdpa: bool = True,
        grid_size: int = 14,
        is_causal: bool = False,
        spatial_splits: int = 2,
        temporal_splits: int = 2,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__(
            "RoPEAreaAttention",
            {
                "dim": dim,
                "num_heads": num_heads,
                "qkv_bias": qkv_bias,
                "qk_scale": qk_scale,
                "attn_drop": attn_drop,
                "proj_drop": proj_drop,
                "use_sdpa": use_sdpa,
                "grid_size": grid_size,
                "is_causal": is_causal,
                "spatial_splits": spatial_splits,
                "temporal_splits": temporal_splits,
                "residual_scale": residual_scale,
            },
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        T: int | None = None,
        H_patches: int | None = None,
        W_patches: int | None = None,
    ) -> Tensor:
        """As RoPEAttention. With a mask but no T, the areas divide the frames up to the batch's latest
        one."""
        return self._call(x, mask, attn_mask, T, H_patches, W_patches)


def area_ids(
    ids: Tensor,
    T: int | None,
    H_patches: int,
    W_patches: int,
    spatial_splits: int = 2,
    temporal_splits: int = 2,
) -> Tensor:
    """The area of each token id (any shape), 0 .. spatial_splits * temporal_splits - 1: bands of frames,
    and in them bands of rows. Without T the latest frame among the ids ends the grid."""
    return _C.nn.area_ids(ids, T, H_patches, W_patches, spatial_splits, temporal_splits)
