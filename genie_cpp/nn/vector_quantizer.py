"""Vector quantization."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from genie_cpp.adoption import Module
from genie_cpp.checks import checked_seed


class Quantized(NamedTuple):
    """What VectorQuantizer gives."""

    values: Tensor
    """(...,code_dim): the nearest codes; gradients pass straight through to x."""
    indices: Tensor
    """int64 (...)."""
    loss: Tensor
    """Scalar: commitment (and, with update="loss", codebook) term."""


class VectorQuantizer(Module):
    """Vector quantization with the straight-through estimator (van den Oord et al. 2017, arXiv 1711.00937).

    `update`: "ema" (codes are moving averages of what chose them) or "loss" (the codebook is a
    parameter). In training forward() gathers statistics; call update_codebook() once an optimizer step
    to apply them. With `kmeans_init` the first training batch places the codes; a code unused for
    `dead_code_steps` updates (0: never) restarts at a live encoding. A copy doesn't take over statistics
    gathered since the last update.
    """

    def __init__(
        self,
        num_codes: int = 1024,
        code_dim: int = 32,
        update: str = "ema",
        ema_decay: float = 0.99,
        commitment_weight: float = 1.0,
        codebook_weight: float = 1.0,
        kmeans_init: bool = True,
        dead_code_steps: int = 100,
    ) -> None:
        super().__init__(
            "VectorQuantizer",
            {
                "num_codes": num_codes,
                "code_dim": code_dim,
                "update": update,
                "ema_decay": ema_decay,
                "commitment_weight": commitment_weight,
                "codebook_weight": codebook_weight,
                "kmeans_init": kmeans_init,
                "dead_code_steps": dead_code_steps,
            },
        )

    def forward(self, x: Tensor) -> Quantized:
        """x (...,code_dim) to its nearest codes. Raises ValueError for another shape, TypeError for another
        type than the codebook's (autocast converts)."""
        return Quantized(*self._call(x))

    def lookup(self, indices: Tensor) -> Tensor:
        """Codes (...,code_dim) of int64 indices (...). Raises IndexError for one outside the codebook."""
        return self._method("lookup")(indices)

    def initialize_from(self, x: Tensor, seed: int = 0) -> None:
        """Places all codes at k-means centers of x (M,code_dim)."""
        self._method("initialize_from")(x, checked_seed(seed))

    def update_codebook(self, seed: int = 0) -> None:
        """Applies the statistics gathered since the last call; `seed` draws where dead codes restart.

        Raises ValueError, leaving the codebook alone, where NaN or infinite encodings were among them.
        """
        self._method("update_codebook")(checked_seed(seed))

    def discard_statistics(self) -> None:
        """Forgets the statistics gathered since the last update."""
        self._handle.discard_statistics()

    def take_usage(self) -> tuple[float, float]:
        """(share of the codes in use, perplexity) over the updates since the last call."""
        return self._handle.take_usage()
