"""A trained model's encoders and decoder on clips of any length, with tensors kept on the CPU in between."""

from __future__ import annotations

from typing import Any

import torch

from genie_cpp.config_values import clip_length
from genie_cpp.windows import in_windows


class Codec:
    """Video float (B,T,3,H,W) to tokens int64 (B,T,N) and back, and to latent actions int64 (B,T-1)."""

    def __init__(self, genie: Any) -> None:
        self._genie = genie
        self._device = torch.device(getattr(genie, "device", "cpu"))
        self._tokenizer_frames = clip_length(genie.config, "tokenizer")
        self._action_frames = clip_length(genie.config, "latent_action")

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the model's device."""
        return tensor.to(self._device)

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        return in_windows(self._genie.tokenizer.encode, self.put(video), self._tokenizer_frames).cpu()

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        video = in_windows(self._genie.tokenizer.decode, self.put(tokens), self._tokenizer_frames)
        return video.float().clamp(0, 1).cpu()

    def infer(self, video: torch.Tensor) -> torch.Tensor:
        return in_windows(self._genie.latent_action.infer, self.put(video), self._action_frames).cpu()
