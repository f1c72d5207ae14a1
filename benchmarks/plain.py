"""The models' mathematics in plain eager PyTorch, as one would write it today: torch.nn layers and
scaled_dot_product_attention. The modules carry the weight names of ours, so that ours load with strict=True.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, axis: str) -> None:
        super().__init__()
        self.heads, self.axis = heads, axis
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x_BTNC: Tensor) -> Tensor:
        b, t, n, c = x_BTNC.shape
        x = x_BTNC if self.axis == "space" else x_BTNC.transpose(1, 2)
        sequences, length = x.shape[0] * x.shape[1], x.shape[2]
        q, k, v = self.qkv(x).view(sequences, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = (F.layer_norm(part, part.shape[-1:], eps=1e-6) for part in (q, k))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.axis == "time")
        out = self.proj(out.transpose(1, 2).reshape(x.shape))
        return out if self.axis == "space" else out.transpose(1, 2)


class MLP(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1_spatial, self.norm1_temporal, self.norm2 = (nn.LayerNorm(dim) for _ in range(3))
        self.attn_spatial = Attention(dim, heads, "space")
        self.attn_temporal = Attention(dim, heads, "time")
        self.mlp = MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn_spatial(self.norm1_spatial(x))
        x = x + self.attn_temporal(self.norm1_temporal(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Position(nn.Module):
    def __init__(self, frames: int, side: int, dim: int) -> None:
        super().__init__()
        self.spatial, self.temporal = nn.Module(), nn.Module()
        self.spatial.row = nn.Parameter(torch.zeros(side, 1, dim))
        self.spatial.column = nn.Parameter(torch.zeros(1, side, dim))
        self.temporal.frame = nn.Parameter(torch.zeros(frames, dim))

    def forward(self, x: Tensor) -> Tensor:
        space = (self.spatial.row + self.spatial.column).flatten(0, 1)
        return x + self.temporal.frame[: x.shape[1], None] + space


class Stack(nn.Module):
    """Linear in, positions, transformer, linear out."""

    def __init__(
        self, width: int, dim: int, depth: int, heads: int, out: int, frames: int, side: int
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(width, dim)
        self.position = Position(frames, side, dim)
        self.transformer = Transformer(dim, depth, heads)
        self.head = nn.Linear(dim, out)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        x = self.position(self.embed(x))
        return self.head(self.transformer(x if added is None else x + added))


class Quantizer(nn.Module):
    """Nearest codes by a whole distance matrix, straight-through."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.zeros(codes, width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.flatten(0, -2).float()
        indices = torch.cdist(flat, self.codebook).argmin(1)
        entries = self.codebook[indices]
        loss = (flat - entries).square().sum(1).mean()
        return (flat + (entries - flat).detach()).view(x.shape), indices.view(x.shape[:-1]), loss


def patchify(video: Tensor, patch: int) -> Tensor:
    b, t, c, h, w = video.shape
    x = video.view(b, t, c, h // patch, patch, w // patch, patch).permute(0, 1, 3, 5, 2, 4, 6)
    return x.reshape(b, t, (h // patch) * (w // patch), c * patch * patch)


class Tokenizer(nn.Module):
    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.patch = s.patch
        width = 3 * s.patch**2
        self.encoder = Stack(width, s.dim, s.tokenizer_depth, s.heads, s.code_dim, s.frames, s.side)
        self.quantizer = Quantizer(s.codes, s.code_dim)
        self.decoder = Stack(s.code_dim, s.dim, s.tokenizer_depth, s.heads, width, s.frames, s.side)

    def forward(self, video: Tensor) -> Tensor:
        patches = patchify(video, self.patch)
        values, _, loss = self.quantizer(self.encoder(patches))
        return (self.decoder(values).float() - patches).square().sum(-1).mean() + loss


class Dynamics(nn.Module):
    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.token, self.action = nn.Module(), nn.Module()
        self.token.token = nn.Embedding(s.codes, s.dim)
        self.token.mask = nn.Parameter(torch.zeros(s.dim))
        self.action.action = nn.Embedding(s.actions + 1, s.dim)
        self.position = Position(s.frames, s.side, s.dim)
        self.transformer = Transformer(s.dim, s.dynamics_depth, s.heads)
        self.head = nn.Linear(s.dim, s.codes)

    def forward(self, tokens: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """The loss over masked tokens, from logits of all of them, as the peers do it."""
        x = torch.where(mask[..., None], self.token.mask, self.token.token(tokens))
        none = actions.new_full((len(actions), 1), self.action.action.num_embeddings - 1)
        x = self.position(x) + self.action.action(torch.cat([none, actions], 1))[:, :, None]
        logits = self.head(self.transformer(x)).float()
        return F.cross_entropy(logits[mask], tokens[mask])


class LatentAction(nn.Module):
    def __init__(self, s: Sizes) -> None:
        super().__init__()
        self.patch = s.action_patch
        width, side = 3 * self.patch**2, s.size // self.patch
        depth, code_dim = s.tokenizer_depth, s.code_dim
        self.encoder = nn.Module()
        self.encoder.action_token = nn.Parameter(torch.zeros(s.dim))
        self.encoder.embed, self.encoder.embed_change = nn.Linear(width, s.dim), nn.Linear(width, s.dim)
        self.encoder.position = Position(s.frames, side, s.dim)
        self.encoder.transformer = Transformer(s.dim, depth, s.heads)
        self.encoder.head = nn.Linear(s.dim, code_dim)
        self.quantizer = Quantizer(s.actions, code_dim)
        self.predictor = Stack(width, s.dim, depth, s.heads, width, s.frames, side)
        self.predictor.embed_action = nn.Linear(code_dim, s.dim)
        self.hidden_patch = nn.Parameter(torch.zeros(width))

    def forward(self, video: Tensor) -> Tensor:
        patches = patchify(video, self.patch)
        before, after = patches[:, :-1], patches[:, 1:]
        e = self.encoder
        change = torch.cat([torch.zeros_like(patches[:, :1]), after - before], 1)
        x = e.position(e.embed(patches) + e.embed_change(change))
        action = e.action_token.to(x.dtype).expand(*x.shape[:2], 1, -1)
        codes = e.head(e.transformer(torch.cat([x, action], 2))[:, 1:, -1])
        values, _, loss = self.quantizer(codes)
        predicted = before + self.predictor(before, self.predictor.embed_action(values)[:, :, None])
        return (predicted.float() - after).square().sum(-1).mean() + 0.25 * loss


@dataclass(frozen=True)
class Sizes:
    """The shape all public models were measured at (docs/performance.md)."""

    size: int = 64
    frames: int = 16
    batch: int = 4
    patch: int = 4
    action_patch: int = 16
    dim: int = 256
    heads: int = 8
    tokenizer_depth: int = 4
    dynamics_depth: int = 8
    codes: int = 1024
    code_dim: int = 32
    actions: int = 8

    @property
    def side(self) -> int:
        return self.size // self.patch
