"""The probe: attention pools a clip's features into one vector, a linear layer reads a class off it."""

from __future__ import annotations

from torch import Tensor

from genie_cpp.adoption import Module


class AttentiveClassifier(Module):
    """V-JEPA 2's probe (facebookresearch/vjepa2, `src/models/attentive_pooler.py`) with its weight names.

    `depth - 1` blocks of self-attention without positions, then one block in which a learned query attends to
    the features, then a linear layer. V-JEPA 2 evaluates with depth=4 and num_heads=16.
    """

    def __init__(
        self,
        embed_dim: int = 768,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        depth: int = 1,
        qkv_bias: bool = True,
        num_classes: int = 1000,
    ) -> None:
        super().__init__(
            "AttentiveClassifier",
            {
                "embed_dim": embed_dim,
                "num_heads": num_heads,
                "mlp_ratio": mlp_ratio,
                "depth": depth,
                "qkv_bias": qkv_bias,
                "num_classes": num_classes,
            },
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B,N,embed_dim) to logits (B,num_classes). Raises ValueError or TypeError for others."""
        logits: Tensor = self._call(features)
        return logits
