"""Models applied to clips longer than those they take."""

from __future__ import annotations

from collections.abc import Callable

import torch


def in_windows(
    function: Callable[[torch.Tensor], torch.Tensor], sequence: torch.Tensor, window: int
) -> torch.Tensor:
    """Applies a model that is causal along dimension 1 and takes `window` frames to a sequence of any length.

    Later windows overlap the earlier ones by half, and only what they add is kept.
    """
    if sequence.dim() < 2:
        return function(sequence)  # which says what it wants
    length = sequence.shape[1]
    outputs = [function(sequence[:, :window])]
    end = min(window, length)
    while end < length:
        begin = min(end - window // 2, length - window)
        outputs.append(function(sequence[:, begin : begin + window])[:, end - begin - window :])
        end = begin + window
    return torch.cat(outputs, dim=1)
