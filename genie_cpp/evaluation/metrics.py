"""The figures themselves. Videos are float tensors (...,3,H,W) in [0,1]; nothing here knows a model."""

from __future__ import annotations

import numpy as np
import torch

PSNR_CEILING = 100.0  # decibels; a perfect frame would be infinite
CHANGED = 4 / 255  # a pixel changes where one of its channels differs by more than this


def _decibels(mse: torch.Tensor) -> torch.Tensor:
    return -10 * torch.log10(mse.clamp(min=10 ** (-PSNR_CEILING / 10)))


def psnr(video: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each frame in decibels, (...,3,H,W) to (...); 100 at most."""
    return _decibels((video.double() - reference.double()).square().mean(dim=(-3, -2, -1)))


def changed_pixels(video: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Where a pixel is off `before` by more than 4/255 in a channel, (...,3,H,W) to bool (...,1,H,W)."""
    # The slack keeps a difference of exactly 4/255 out whichever way its rounding goes.
    return (video - before).abs().amax(dim=-3, keepdim=True) > CHANGED + 1e-6


def pooled_psnr(video: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> float | None:
    """PSNR of all pixels where `mask` (...,1,H,W) holds, of all frames together; None where it never does.

    Pooled, because a frame with three such pixels should not weigh as much as one with a thousand.
    """
    count = int(mask.sum()) * video.shape[-3]
    if count == 0:
        return None
    error = (video.double() - reference.double()).square() * mask
    return float(_decibels(error.sum() / count))


def ssim(video: torch.Tensor, reference: torch.Tensor, window: int = 11, sigma: float = 1.5) -> torch.Tensor:
    """Structural similarity of each frame, (...,3,H,W) to (...), mean over channels and window positions.

    After Wang et al. 2004: Gaussian window, K1 = 0.01, K2 = 0.03, only windows that lie wholly inside the
    frame. A frame smaller than the window is seen through the largest odd window that fits.
    """
    height, width = video.shape[-2:]
    window = min(window, height - 1 + height % 2, width - 1 + width % 2)
    down, across = _blur_matrix(height, window, sigma), _blur_matrix(width, window, sigma)

    def blur(x: torch.Tensor) -> torch.Tensor:
        return down @ x @ across.T

    x, y = video.double().cpu(), reference.double().cpu()
    mean_x, mean_y = blur(x), blur(y)
    variance_x = blur(x * x) - mean_x.square()
    variance_y = blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2)
    return similarity.mean(dim=(-3, -2, -1))


def _blur_matrix(size: int, window: int, sigma: float) -> torch.Tensor:
    """(size - window + 1, size): each row weighs one window's positions by a Gaussian."""
    offsets = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    kernel = torch.exp(-offsets.square() / (2 * sigma**2))
    matrix = torch.zeros(size - window + 1, size, dtype=torch.float64)
    for row in range(len(matrix)):
        matrix[row, row : row + window] = kernel / kernel.sum()
    return matrix


def codebook_usage(tokens: torch.Tensor, num_codes: int) -> float:
    """Share of the codes that occur among `tokens`."""
    return tokens.unique().numel() / num_codes


def perplexity(tokens: torch.Tensor, num_codes: int) -> float:
    """exp of the entropy of the codes' frequencies: how many codes, used evenly, would say as much."""
    counts = torch.bincount(tokens.flatten(), minlength=num_codes).double()
    shares = counts[counts > 0] / counts.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Mutual information of two discrete sequences of one length in bits, from their joint frequencies."""
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1 / a.size)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    seen = joint > 0
    # Rounding can leave a negative zero behind.
    return max(0.0, float((joint[seen] * np.log2(joint[seen] / independent[seen])).sum()))


def shuffled_mutual_information(
    a: np.ndarray, b: np.ndarray, shuffles: int, rng: np.random.Generator
) -> float:
    """The largest mutual information of `a` with shuffled copies of `b`: what chance alone reaches."""
    return max(mutual_information(a, rng.permutation(b)) for _ in range(shuffles))
