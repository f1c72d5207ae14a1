"""Checks of arguments before they reach the C++ core, which can't name them as well."""

from __future__ import annotations

import operator
from typing import Any

import torch


def checked_seed(seed: Any) -> int:
    """The seed of a random generator: TypeError for another type, ValueError outside 0..2**64-1."""
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"a seed is a whole number, got {seed!r}") from None
    if not 0 <= number < 2**64:
        raise ValueError(f"a seed is 0 .. 2**64-1, got {number}")
    return number


def checked_video(video: torch.Tensor) -> torch.Tensor:
    """The video, without NaN or infinite values (ValueError), which would still get tokens."""
    if video.is_floating_point() and video.device.type != "meta" and not video.isfinite().all():
        raise ValueError("the video holds NaN or infinite values; pixels are expected in [0,1]")
    return video
