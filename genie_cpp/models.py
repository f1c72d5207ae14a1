"""The world model of Genie (arXiv 2402.15391): video tokenizer, latent action model and dynamics model.

Shapes: B samples, T frames, H and W pixels, N tokens a frame (patches), K codes. Video is float in [0,1] of
shape (B,T,3,H,W); tokens and actions are int64. The computation is the C++ core's, without Python's lock; the
tensors of parameters and buffers are the core's own, so that an optimizer changes the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch

from genie_cpp import _C
from genie_cpp.config_values import ConfigLike, as_config
from genie_cpp.windows import in_windows

__all__ = ["DynamicsModel", "Genie", "LatentActionModel", "VideoTokenizer", "load"]


class _Model:
    """What the models have in common, named as in torch.nn.Module."""

    def __init__(self, core: Any, config: _C.Config) -> None:
        self._core = core
        self._config = config

    @property
    def config(self) -> _C.Config:
        """A copy of the whole configuration the model was made from."""
        return _C.Config.parse(self._config.to_yaml())

    @property
    def device(self) -> torch.device:
        """Where the parameters are; inputs must be there too."""
        return next(self.parameters()).device

    @property
    def training(self) -> bool:
        return self._core.is_training

    def named_parameters(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self._core.named_parameters().items()

    def named_buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self._core.named_buffers().items()

    def parameters(self) -> Iterator[torch.Tensor]:
        yield from self._core.named_parameters().values()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by name, detached; they share memory with the model's."""
        entries = {**self._core.named_parameters(), **self._core.named_buffers()}
        return {name: tensor.detach() for name, tensor in entries.items()}

    def train(self, mode: bool = True) -> Any:
        """Dropout on, codebooks that learn by moving averages move; returns the model."""
        self._core.train(mode)
        return self

    def eval(self) -> Any:
        self._core.eval()
        return self

    def to(self, device: torch.device | str) -> Any:
        """Moves parameters and buffers; returns the model."""
        self._core.to(torch.device(device))
        return self

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"{type(self).__name__}({count:,} parameters on {self.device})"


class VideoTokenizer(_Model):
    """Video to tokens and back: causal ST-ViViT encoder, vector quantizer, causal ST-ViViT decoder.

    `config` is a Config, a YAML file or nested dictionaries; its sections `tokenizer` and `data` (num_frames,
    height, width) count. The weights are random. Raises GenieError naming a key that does not fit.
    """

    def __init__(self, config: ConfigLike) -> None:
        settings = as_config(config)
        super().__init__(_C.VideoTokenizer(settings), settings)

    @classmethod
    def _of(cls, core: _C.VideoTokenizer, config: _C.Config) -> VideoTokenizer:
        model = cls.__new__(cls)
        _Model.__init__(model, core, config)
        return model

    @property
    def num_codes(self) -> int:
        """K, entries of the codebook; tokens are 0..K-1."""
        return self._core.num_codes

    @property
    def num_frames(self) -> int:
        """Frames the model sees at once."""
        return self._core.num_frames

    @property
    def tokens_per_frame(self) -> int:
        """N."""
        return self._core.tokens_per_frame

    def __call__(self, video: torch.Tensor) -> dict[str, torch.Tensor]:
        """What a training step needs, for video (B,T,3,H,W), T <= num_frames.

        "patches", "reconstruction" (B,T,N,P) with P = 3 * patch_size**2, "tokens" (B,T,N), "quantizer_loss"
        a scalar. In training mode the codebook's moving averages take part. Raises ValueError for another
        shape.
        """
        return self._core.forward(video)

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Tokens int64 (B,T,N) of video (B,T,3,H,W); those of a frame depend on it and earlier ones only.

        More than num_frames frames are encoded in windows that overlap by half. Raises ValueError for another
        shape.
        """
        return in_windows(self._core.encode, video, self.num_frames)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Video (B,T,3,H,W) in [0,1] of tokens int64 (B,T,N); a frame depends on tokens up to its own.

        More than num_frames frames are decoded in windows that overlap by half, of which the new frames are
        kept. Raises ValueError for another shape and IndexError for a token outside 0..num_codes-1.
        """
        return in_windows(self._core.decode, tokens, self.num_frames)


class LatentActionModel(_Model):
    """Which of a few discrete actions, that nobody labelled, led from each frame to the next.

    `config` is a Config, a YAML file or nested dictionaries; its sections `latent_action` and `data`
    (num_frames, height, width) count. The weights are random. Raises GenieError naming a key that does not
    fit.
    """

    def __init__(self, config: ConfigLike) -> None:
        settings = as_config(config)
        super().__init__(_C.LatentActionModel(settings), settings)

    @classmethod
    def _of(cls, core: _C.LatentActionModel, config: _C.Config) -> LatentActionModel:
        model = cls.__new__(cls)
        _Model.__init__(model, core, config)
        return model

    @property
    def num_actions(self) -> int:
        """Actions are 0..num_actions-1."""
        return self._core.num_actions

    @property
    def num_frames(self) -> int:
        """Frames the model sees at once."""
        return self._core.num_frames

    def __call__(self, video: torch.Tensor, hidden: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """What a training step needs, for video (B,T,3,H,W), 2 <= T <= num_frames.

        `hidden` bool (B,T-1,N) hides past patches from the prediction. "previous", "target" and "prediction"
        (B,T-1,N,P): patches of frames 1..T-1, of frames 2..T, and predicted ones (logits of them with loss
        sigmoid_cross_entropy); "actions" (B,T-1); "quantizer_loss" a scalar. Raises ValueError for another
        shape.
        """
        return self._core.forward(video, hidden)

    def infer(self, video: torch.Tensor) -> torch.Tensor:
        """The actions between neighbouring frames: int64 (B,T-1) for video (B,T,3,H,W), T >= 2.

        The action between two frames depends on them and earlier ones only. More than num_frames frames are
        looked at in windows that overlap by half. Raises ValueError for another shape.
        """
        return in_windows(self._core.infer, video, self.num_frames)


class DynamicsModel(_Model):
    """MaskGIT (arXiv 2202.04200) over frames of tokens: hidden tokens from visible ones and the actions.

    `config` is a Config, a YAML file or nested dictionaries; all three models' sections count, since the
    tokenizer's and the latent action model's say how many tokens and actions there are. The weights are
    random. Raises GenieError naming a key that does not fit.
    """

    def __init__(self, config: ConfigLike) -> None:
        settings = as_config(config)
        super().__init__(_C.DynamicsModel(settings), settings)

    @classmethod
    def _of(cls, core: _C.DynamicsModel, config: _C.Config) -> DynamicsModel:
        model = cls.__new__(cls)
        _Model.__init__(model, core, config)
        return model

    @property
    def num_frames(self) -> int:
        """Frames the model sees at once."""
        return self._core.num_frames

    @property
    def num_tokens(self) -> int:
        """K, the tokens there are to choose from."""
        return self._core.num_tokens

    @property
    def num_actions(self) -> int:
        return self._core.num_actions

    @property
    def tokens_per_frame(self) -> int:
        """N."""
        return self._core.tokens_per_frame

    def __call__(self, tokens: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (B,T,N,K) of every token.

        tokens int64 (B,T,N) with T <= num_frames; actions int64 (B,T-1), entry t between frames t and t+1;
        mask bool (B,T,N), true hides a token. Frame t sees frames and actions up to its own. Raises
        ValueError for another shape, TypeError for another type, IndexError for a token or action that does
        not exist.
        """
        return self._core.forward(tokens, actions, mask)

    def features(self, tokens: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What the output layer sees: (B,T,N,E), E the transformer's width."""
        return self._core.features(tokens, actions, mask)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """The output layer: features (...,E) to logits (...,K)."""
        return self._core.logits(features)

    def generate(
        self,
        prompt_tokens: torch.Tensor,
        actions: torch.Tensor,
        *,
        seed: int = 0,
        steps: int | None = None,
        temperature: float | None = None,
        schedule: str | None = None,
        unmasking: str | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> torch.Tensor:
        """See Genie.generate."""
        return self._core.generate(
            self._config,
            prompt_tokens,
            actions,
            seed,
            steps=steps,
            temperature=temperature,
            schedule=schedule,
            unmasking=unmasking,
            top_k=top_k,
            top_p=top_p,
        )


class Genie(_Model):
    """The three models of a configuration, as `tokenizer`, `latent_action` and `dynamics`.

    `config` is a Config, a YAML file or nested dictionaries. The weights are random; genie_cpp.load gives
    trained ones. Raises GenieError naming a key that does not fit.
    """

    def __init__(self, config: ConfigLike) -> None:
        self._adopt(_C.Genie(as_config(config)))

    @classmethod
    def _of(cls, core: _C.Genie) -> Genie:
        model = cls.__new__(cls)
        model._adopt(core)
        return model

    def _adopt(self, core: _C.Genie) -> None:
        super().__init__(core, core.config)
        self.tokenizer = VideoTokenizer._of(core.tokenizer, core.config)
        self.latent_action = LatentActionModel._of(core.latent_action, core.config)
        self.dynamics = DynamicsModel._of(core.dynamics, core.config)
        self.untrained: list[str] = []
        """The phases whose models load() found no checkpoint of."""

    def generate(
        self,
        prompt_tokens: torch.Tensor,
        actions: torch.Tensor,
        *,
        seed: int = 0,
        steps: int | None = None,
        temperature: float | None = None,
        schedule: str | None = None,
        unmasking: str | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> torch.Tensor:
        """Frames of tokens, int64 (B,K,N), that follow the prompt when the actions are taken.

        prompt_tokens int64 (B,T0,N), T0 >= 1; actions int64 (B,T0-1+K): those between the prompt's frames,
        then one for each of K new frames. T0 and K may go beyond num_frames: the model then sees the last
        num_frames-1 frames. What is None is the configuration's (section `inference`); temperature 0 takes
        the most likely tokens. The same seed gives the same frames.

        Raises GenieError for an option out of its range, ValueError for another shape, IndexError for a token
        or action that does not exist.
        """
        return self.dynamics.generate(
            prompt_tokens,
            actions,
            seed=seed,
            steps=steps,
            temperature=temperature,
            schedule=schedule,
            unmasking=unmasking,
            top_k=top_k,
            top_p=top_p,
        )


def load(
    run_dir: str | os.PathLike[str],
    device: torch.device | str | None = None,
    allow_untrained: bool = False,
) -> Genie:
    """The models of a run directory, each from its newest checkpoint, in evaluation mode.

    They are put on `device`; None leaves them on the CPU. With `allow_untrained`, models that have no
    checkpoint keep a random start and stand in `untrained`. Raises GenieError for a directory that is no run,
    a phase that is not trained, or a checkpoint that is damaged or does not fit the configuration.
    """
    core, untrained = _C.load_genie(os.fspath(run_dir), allow_untrained)
    genie = Genie._of(core)
    genie.untrained = untrained
    return genie if device is None else genie.to(device)
