"""Patches, positions and the root mean square norm."""

from __future__ import annotations

from torch import Tensor

from genie_cpp.adoption import Module


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467),
    float32 inside."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__("RMSNorm", {"dim": dim, "eps": eps})

    def forward(self, x: Tensor) -> Tensor:
        """x (...,dim); same shape and dtype out."""
        return self._call(x)


class PatchEmbedding(Module):
    """A linear map of each patch of patch_size x patch_size pixels. Frames that are no multiple of the
    patch are padded right and bottom by repeating their last column and row."""

    def __init__(self, height: int, width: int, patch_size: int, dim: int) -> None:
        super().__init__(
            "PatchEmbedding", {"height": height, "width": width, "patch_size": patch_size, "dim": dim}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Video (B,T,3,height,width) in [0,1] to (B,T,N,dim), row by row."""
        return self._call(x)


class SpatialPositionalEmbedding(Module):
    """Adds a learned embedding of each token's row and one of its column."""

    def __init__(self, rows: int, columns: int, dim: int) -> None:
        super().__init__("SpatialPositionalEmbedding", {"rows": rows, "columns": columns, "dim": dim})

    def forward(self, x: Tensor) -> Tensor:
        """x (B,T,rows*columns,dim); same shape out."""
        return self._call(x)


class TemporalPositionalEmbedding(Module):
    """Adds a learned embedding of each frame's place in the window."""

    def __init__(self, max_frames: int, dim: int) -> None:
        super().__init__("TemporalPositionalEmbedding", {"max_frames": max_frames, "dim": dim})

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """x (B,T,N,dim), whose first frame is frame `offset` of the window; same shape out."""
        return self._call(x, offset)


class CombinedPositionalEmbedding(Module):
    """Spatial and temporal positional embedding together."""

    def __init__(self, max_frames: int, rows: int, columns: int, dim: int) -> None:
        super().__init__(
            "CombinedPositionalEmbedding",
            {"max_frames": max_frames, "rows": rows, "columns": columns, "dim": dim},
        )

    def forward(self, x: Tensor, frame_offset: int = 0) -> Tensor:
        """x (B,T,rows*columns,dim), whose first frame is frame `frame_offset`; same shape out."""
        return self._call(x, frame_offset)
