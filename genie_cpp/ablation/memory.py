"""The most memory a step takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

MIB = float(1 << 20)
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors hold."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class PeakMemory:
    """Bytes in use at the most between start() and stop(), over all such pairs: on a GPU of torch's
    allocator, else of the process, libraries included (0 where the system doesn't tell)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.peak = 0

    def start(self) -> None:
        """Before a step."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif CLEAR.exists():
            CLEAR.write_text("5")  # the process's peak starts anew

    def stop(self) -> None:
        """After a step."""
        self.peak = max(self.peak, self._highest())

    def _highest(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        lines = STATUS.read_text().splitlines() if STATUS.is_file() else []
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
