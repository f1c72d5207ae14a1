from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from genie_cpp.evaluation import linear_tokenizer, metrics


def test_psnr_of_a_known_error_is_its_decibels() -> None:
    video = torch.zeros(2, 3, 3, 4, 4)
    reference = video.clone()
    reference[1] = 0.1  # squared error 0.01 everywhere: 20 dB
    result = metrics.psnr(video, reference)
    assert result.shape == (2, 3)
    assert (result[0] - 100).abs().max() <= 1e-9  # the ceiling, not infinity
    assert (result[1] - 20).abs().max() <= 1e-5


def test_changed_pixels_are_those_beyond_four_levels() -> None:
    before = torch.zeros(3, 2, 2)
    video = before.clone()
    video[0, 0, 0] = 4 / 255
    video[2, 1, 1] = 5 / 255
    assert metrics.changed_pixels(video, before).tolist() == [[[False, False], [False, True]]]


def test_pooled_psnr_counts_only_masked_pixels() -> None:
    video, reference = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    video[0, :, 0, 0] = 0.5
    video[1] = 0.9  # outside the mask
    mask = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
    mask[0, 0, 0, :] = True  # one pixel wrong by 0.5, one right
    assert metrics.pooled_psnr(video, reference, mask) == pytest.approx(-10 * math.log10(0.25 / 2))
    assert metrics.pooled_psnr(video, reference, torch.zeros_like(mask)) is None


def naive_ssim(x: np.ndarray, y: np.ndarray, window: int) -> float:
    offsets = np.arange(window) - (window - 1) / 2
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for top in range(x.shape[0] - window + 1):
        for left in range(x.shape[1] - window + 1):
            a, b = x[top : top + window, left : left + window], y[top : top + window, left : left + window]
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            cov = (weights * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + 1e-4)
                * (2 * cov + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
            )
    return float(np.mean(values))


@pytest.mark.parametrize(("height", "width", "window"), [(14, 17, 11), (8, 9, 7)])
def test_ssim_agrees_with_a_loop_over_windows(height: int, width: int, window: int) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(2, 3, height, width, generator=generator)
    y = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    result = metrics.ssim(x, y)
    for frame in range(2):
        expected = np.mean([naive_ssim(x[frame, c].numpy(), y[frame, c].numpy(), window) for c in range(3)])
        assert abs(float(result[frame]) - expected) <= 1e-6
    assert (metrics.ssim(x, x) - 1).abs().max() <= 1e-9


def test_usage_and_perplexity_of_known_frequencies() -> None:
    assert metrics.codebook_usage(torch.tensor([[0, 0], [1, 5]]), 10) == pytest.approx(0.3)
    assert metrics.perplexity(torch.arange(8).repeat(3), 16) == pytest.approx(8)
    assert metrics.perplexity(torch.zeros(5, dtype=torch.int64), 16) == pytest.approx(1)
    shares = [0.5, 0.25, 0.25]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert metrics.perplexity(torch.tensor([0, 0, 1, 2]), 4) == pytest.approx(expected)


def test_mutual_information_of_constructed_sequences() -> None:
    a = np.array([0, 1, 2, 3] * 8)
    assert metrics.mutual_information(a, (a * 5 + 2) % 7) == pytest.approx(2)  # renamed: all of two bits
    assert metrics.mutual_information(a, a // 2) == pytest.approx(1)  # one bit of two
    assert metrics.mutual_information(a, np.repeat([0, 1], 16)) == pytest.approx(0, abs=1e-12)  # independent
    assert metrics.mutual_information(a, np.zeros(32, int)) == 0
    # Joint shares 3/8, 1/8, 1/8, 3/8.
    x, y = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 0, 1, 1, 1])
    expected = 2 * 3 / 8 * math.log2(1.5) + 2 * 1 / 8 * math.log2(0.5)
    assert metrics.mutual_information(x, y) == pytest.approx(expected)


def test_shuffles_keep_the_frequencies_and_lose_the_order() -> None:
    a = np.arange(4).repeat(50)
    chance = metrics.shuffled_mutual_information(a, a, 100, np.random.default_rng(0))
    assert 0 < chance <= 0.2
    again = metrics.shuffled_mutual_information(a, a, 100, np.random.default_rng(0))
    assert chance == again


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 10)])
def test_patches_go_back_to_the_same_frames(height: int, width: int) -> None:
    video = torch.rand(2, 3, 3, height, width, generator=torch.Generator().manual_seed(0))
    patches = linear_tokenizer.to_patches(video, 4)
    assert patches.shape == (2, 3, 2 * 3, 48)
    assert torch.equal(linear_tokenizer.from_patches(patches, 4, height, width), video)


def test_linear_tokenizer_is_exact_where_codes_suffice() -> None:
    # Four kinds of patch, four codes, three dimensions between them.
    generator = torch.Generator().manual_seed(1)
    kinds = torch.rand(4, 48, generator=generator)
    patches = kinds[torch.randint(4, (20, 9), generator=generator)]
    video = linear_tokenizer.from_patches(patches, 4, 12, 12)
    tokenizer = linear_tokenizer.fit(video, patch_size=4, num_codes=4, code_dim=3)
    assert (tokenizer.reconstruct(video) - video).abs().max() <= 1e-4
    assert tokenizer.encode(video).unique().numel() == 4


def test_linear_tokenizer_improves_with_codes() -> None:
    video = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(2)).cumsum(-1) / 32
    scores = [
        float(metrics.psnr(linear_tokenizer.fit(video, 4, codes, 8).reconstruct(video), video).mean())
        for codes in (2, 16, 128)
    ]
    assert scores[0] < scores[1] < scores[2]
