"""Generation of a frame in plain eager PyTorch, with the keys and values of past frames kept as ours keeps
them: rotary time positions, 25 MaskGIT steps on the new frame alone, then one pass that remembers it.
"""

from __future__ import annotations

import math

import plain
import plain_ops
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def masked_after(step: int, steps: int, count: int) -> int:
    """The cosine schedule of MaskGIT."""
    return int(count * math.cos(step / steps * math.pi / 2)) if step < steps else 0


class RotaryDynamics(plain.Dynamics):
    """Positions in space alone are added."""

    def __init__(self, s: plain.Sizes) -> None:
        super().__init__(s)
        del self.position.temporal

    def embed(self, tokens: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        x = torch.where(mask[..., None], self.token.mask, self.token.token(tokens))
        space = self.position.spatial
        return x + (space.row + space.column).flatten(0, 1) + self.action.action(action)


class World:
    """One sample's frames; a frame's features need the frames before it only as keys and values."""

    def __init__(self, model: RotaryDynamics, s: plain.Sizes, steps: int) -> None:
        self.model, self.steps, self.window, self.places = model, steps, s.frames, s.side**2
        shape = (s.dynamics_depth, self.places, s.heads, s.frames, s.dim // s.heads)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)  # a ring of frames
        self.length = 0
        width = s.dim // s.heads
        pairs = torch.arange(width // 2, dtype=torch.float64).view(2, 1, width // 4)
        self.frequency = (10000.0 ** (-2 * pairs / width)).expand(2, 2, width // 4).reshape(1, width)

    def temporal(self, attention: plain.Attention, x: Tensor, layer: int, turn: tuple[Tensor, ...]) -> Tensor:
        """Of (places,dim): attention to the past, oneself included."""
        q, k, v = attention.qkv(x).view(1, self.places, 3, attention.heads, -1).unbind(2)
        q, k = (
            plain_ops.rope_register(F.layer_norm(part, part.shape[-1:], eps=1e-6), *turn) for part in (q, k)
        )
        slot, count = self.length % self.window, min(self.length + 1, self.window)
        self.keys[layer, :, :, slot], self.values[layer, :, :, slot] = k[0], v[0]
        seen = (cache[layer, :, :, :count] for cache in (self.keys, self.values))
        out = F.scaled_dot_product_attention(q[0].unsqueeze(2), *seen)
        return attention.proj(out.reshape(self.places, -1))

    @torch.no_grad()
    def features(self, tokens: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        """Of tokens and mask (places) and the action before them: (places,dim)."""
        angle = self.length * self.frequency
        turn = tuple(table.float().expand(self.places, -1) for table in (angle.cos(), angle.sin()))
        x = self.model.embed(tokens, action, mask)
        for layer, block in enumerate(self.model.transformer.blocks):
            x = x + block.attn_spatial(block.norm1_spatial(x)[None, None])[0, 0]
            x = x + self.temporal(block.attn_temporal, block.norm1_temporal(x), layer, turn)
            x = x + block.mlp(block.norm2(x))
        return self.model.transformer.norm(x)

    def remember(self, tokens: Tensor, action: Tensor) -> None:
        self.features(tokens, action, torch.zeros_like(tokens, dtype=torch.bool))
        self.length += 1

    @torch.no_grad()
    def step(self, action: Tensor) -> Tensor:
        tokens = torch.zeros(1, self.places, dtype=torch.int64)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        for step in range(1, self.steps + 1):
            keep = masked_after(step, self.steps, self.places)
            if keep >= int(mask.sum()):
                continue  # a step that reveals nothing
            logits = self.model.head(self.features(tokens[0], action, mask[0]))[None]
            tokens, mask = plain_ops.maskgit_step(logits, tokens, mask, torch.rand(1, self.places), keep)
        self.remember(tokens[0], action)
        return tokens


def make_world(dynamics: nn.Module, s: plain.Sizes, tokens: Tensor, actions: Tensor, steps: int) -> World:
    """The world of our dynamics model's weights after the frames `tokens` (T,places)."""
    model = RotaryDynamics(s)
    model.load_state_dict(dynamics.state_dict())
    world = World(model.eval(), s, steps)
    for frame, action in zip(tokens, [torch.tensor(s.actions), *actions], strict=True):
        world.remember(frame, action)
    return world
