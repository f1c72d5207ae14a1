"""A tokenizer without a neural network, fitted in seconds: what a learned one has to beat.

Patches are projected on their principal components and quantized by k-means; its transpose decodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from genie_cpp import _C

MAX_PATCHES = 65536  # that k-means looks at
ITERATIONS = 20


@dataclass(frozen=True)
class LinearTokenizer:
    patch_size: int
    mean: torch.Tensor  # (D) of a patch, D = 3 * patch_size**2
    basis: torch.Tensor  # (code_dim, D), orthonormal rows
    codebook: torch.Tensor  # (num_codes, code_dim)

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Video (...,3,H,W) to tokens (..., patches)."""
        patches = to_patches(video, self.patch_size)
        codes = (patches - self.mean) @ self.basis.T
        return _C.nearest(codes.flatten(0, -2), self.codebook).view(patches.shape[:-1])

    def reconstruct(self, video: torch.Tensor) -> torch.Tensor:
        """Encodes and decodes video (...,3,H,W)."""
        patches = self.codebook[self.encode(video)] @ self.basis + self.mean
        return from_patches(patches, self.patch_size, *video.shape[-2:]).clamp(0, 1)


def to_patches(video: torch.Tensor, size: int) -> torch.Tensor:
    """(...,3,H,W) to (..., patches, 3*size*size), row by row; edges are replicated to fill patches."""
    *batch, channels, height, width = video.shape
    flat = video.reshape(-1, channels, height, width)
    flat = F.pad(flat, (0, -width % size, 0, -height % size), mode="replicate")
    return F.unfold(flat, size, stride=size).transpose(1, 2).reshape(*batch, -1, channels * size * size)


def from_patches(patches: torch.Tensor, size: int, height: int, width: int) -> torch.Tensor:
    """The inverse of to_patches, cropped to height x width."""
    *batch, count, values = patches.shape
    padded = (height + -height % size, width + -width % size)
    flat = patches.reshape(-1, count, values).transpose(1, 2)
    return F.fold(flat, padded, size, stride=size)[..., :height, :width].reshape(*batch, -1, height, width)


def fit(
    video: torch.Tensor, patch_size: int, num_codes: int, code_dim: int, seed: int = 0
) -> LinearTokenizer:
    """Fits the projection and the codebook to the patches of video (...,3,H,W); takes seconds."""
    generator = torch.Generator().manual_seed(seed)
    patches = to_patches(video, patch_size).flatten(0, -2)
    if len(patches) > MAX_PATCHES:
        patches = patches[torch.randperm(len(patches), generator=generator)[:MAX_PATCHES]]
    mean = patches.mean(0)
    centred = patches - mean
    _, vectors = torch.linalg.eigh(centred.T.double() @ centred.double())  # ascending eigenvalues
    basis = vectors.flip(1).T[:code_dim].to(patches.dtype)
    codebook = _C.kmeans(centred @ basis.T, num_codes, ITERATIONS, seed)
    return LinearTokenizer(patch_size, mean, basis, codebook)
