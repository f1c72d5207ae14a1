"""The world model of Genie (arXiv 2402.15391): video tokenizer, latent action model and dynamics model.

Shapes: B samples, T frames, H and W pixels, N tokens a frame (patches), K codes. Video is float in [0,1] of
shape (B,T,3,H,W); tokens and actions are int64. The computation is the C++ core's, without Python's lock; the
tensors of parameters and buffers are the core's own, so that an optimizer changes the model. As with any
torch.nn.Module, hooks run when a model is called: not in encode(), infer() or generate().
"""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from genie_cpp import _C
from genie_cpp.adoption import Module, Part
from genie_cpp.checks import checked_seed, checked_video
from genie_cpp.config_values import ConfigLike, as_config, values
from genie_cpp.nn.vector_quantizer import VectorQuantizer
from genie_cpp.windows import in_windows

if TYPE_CHECKING:
    from genie_cpp.inference import Prompt, Session

_Self = TypeVar("_Self", bound="_Model")

__all__ = ["DynamicsModel", "Genie", "LatentActionModel", "VideoTokenizer", "load"]


class _Model(Module):
    """What the models have in common beside torch.nn.Module: they are made from a whole configuration."""

    _class_name: str

    def __init__(self, config: ConfigLike) -> None:
        super().__init__(self._class_name, {"config": as_config(config)})

    @classmethod
    def _made(cls: type[_Self], handle: Any, config: _C.Config) -> _Self:
        """The model of a C++ module that there is already."""
        return cls._of(handle, cls._class_name, {"config": config})

    @property
    def config(self) -> _C.Config:
        """A copy of the whole configuration the model was made from."""
        return copy.copy(self._arguments["config"])

    @property
    def device(self) -> torch.device:
        """Where the parameters are; inputs must be there too."""
        return next(self.parameters()).device

    def extra_repr(self) -> str:
        count = sum(parameter.numel() for parameter in self.parameters())
        return f"{count:,} parameters on {self.device}"


class _CodebookModel(_Model):
    """A model of clips with a codebook, described by one section of the configuration."""

    _section: str
    quantizer: VectorQuantizer

    def _adopt_child(self, name: str, handle: Any) -> Module:
        if name != "quantizer":
            return Part(handle)
        settings = values(self._arguments["config"])[self._section]["quantizer"]
        del settings["usage_alarm"]  # the trainer's
        quantizer = VectorQuantizer._of(handle, "VectorQuantizer", settings)
        quantizer.__dict__["_called_by_cpp"] = True
        return quantizer

    @property
    def num_frames(self) -> int:
        """Frames the model sees at once."""
        return self._handle.num_frames


class VideoTokenizer(_CodebookModel):
    """Video to tokens and back: causal ST-ViViT encoder, vector quantizer, causal ST-ViViT decoder.

    `config` is a Config, a YAML file or nested dictionaries; its sections `tokenizer` and `data` (num_frames,
    height, width) count. The weights are random. Raises GenieError naming a key that does not fit.
    """

    _class_name = "VideoTokenizer"
    _section = "tokenizer"

    @property
    def num_codes(self) -> int:
        """K, entries of the codebook; tokens are 0..K-1."""
        return self._handle.num_codes

    @property
    def tokens_per_frame(self) -> int:
        """N."""
        return self._handle.tokens_per_frame

    def forward(self, video: torch.Tensor) -> dict[str, torch.Tensor]:
        """What a training step needs, for video (B,T,3,H,W), T <= num_frames.

        "patches", "reconstruction" (B,T,N,P) with P = 3 * patch_size**2, "tokens" (B,T,N), "quantizer_loss"
        a scalar. In training mode the codebook's moving averages take part. Raises ValueError for another
        shape.
        """
        return self._call(video)

    def initialize_from(self, video: torch.Tensor, seed: int = 0) -> None:
        """Fits the linear path (PCA of patches) and the codebook (k-means) to sample video (B,T,3,H,W).

        Does nothing with tokenizer.initialization "random".
        """
        self._method("initialize_from")(checked_video(video), checked_seed(seed))

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        """Tokens int64 (B,T,N) of video (B,T,3,H,W); those of a frame depend on it and earlier ones only.

        More than num_frames frames are encoded in windows that overlap by half. Raises ValueError for another
        shape or NaN, TypeError for another type than the model's.
        """
        return in_windows(self._method("encode"), checked_video(video), self.num_frames)

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        """Video (B,T,3,H,W) in [0,1] of tokens int64 (B,T,N); a frame depends on tokens up to its own.

        More than num_frames frames are decoded in windows that overlap by half, of which the new frames are
        kept. Raises ValueError for another shape and IndexError for a token outside 0..num_codes-1.
        """
        return in_windows(self._method("decode"), tokens, self.num_frames)


class LatentActionModel(_CodebookModel):
    """Which of a few discrete actions, that nobody labelled, led from each frame to the next.

    `config` is a Config, a YAML file or nested dictionaries; its sections `latent_action` and `data`
    (num_frames, height, width) count. The weights are random. Raises GenieError naming a key that does not
    fit.
    """

    _class_name = "LatentActionModel"
    _section = "latent_action"

    @property
    def num_actions(self) -> int:
        """Actions are 0..num_actions-1."""
        return self._handle.num_actions

    def forward(self, video: torch.Tensor, hidden: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """What a training step needs, for video (B,T,3,H,W), 2 <= T <= num_frames.

        `hidden` bool (B,T-1,N) hides past patches from the prediction. "previous", "target" and "prediction"
        (B,T-1,N,P): patches of frames 1..T-1, of frames 2..T, and predicted ones (logits of them with loss
        sigmoid_cross_entropy); "actions" (B,T-1); "quantizer_loss" a scalar. Raises ValueError for another
        shape.
        """
        return self._call(video, hidden)

    def infer(self, video: torch.Tensor) -> torch.Tensor:
        """The actions between neighbouring frames: int64 (B,T-1) for video (B,T,3,H,W), T >= 2.

        The action between two frames depends on them and earlier ones only. More than num_frames frames are
        looked at in windows that overlap by half. Raises ValueError for another shape or NaN, TypeError for
        another type than the model's.
        """
        return in_windows(self._method("infer"), checked_video(video), self.num_frames)

    def predict(self, video: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """The frame that follows each of video (B,T,3,H,W), T < num_frames, under actions int64 (B,T).

        (B,T,3,H,W) in [0,1]; each depends on its own and earlier frames and actions. Raises ValueError for
        another shape and IndexError for an action that does not exist.
        """
        return self._method("predict")(checked_video(video), actions)


class DynamicsModel(_Model):
    """MaskGIT (arXiv 2202.04200) over frames of tokens: hidden tokens from visible ones and the actions.

    `config` is a Config, a YAML file or nested dictionaries; all three models' sections count, since the
    tokenizer's and the latent action model's say how many tokens and actions there are. The weights are
    random. Raises GenieError naming a key that does not fit.
    """

    _class_name = "DynamicsModel"

    @property
    def num_frames(self) -> int:
        """Frames the model sees at once."""
        return self._handle.num_frames

    @property
    def num_tokens(self) -> int:
        """K, the tokens there are to choose from."""
        return self._handle.num_tokens

    @property
    def num_actions(self) -> int:
        return self._handle.num_actions

    @property
    def tokens_per_frame(self) -> int:
        """N."""
        return self._handle.tokens_per_frame

    def forward(self, tokens: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (B,T,N,K) of every token.

        tokens int64 (B,T,N) with T <= num_frames; actions int64 (B,T-1), entry t between frames t and t+1;
        mask bool (B,T,N), true hides a token. Frame t sees frames and actions up to its own. Raises
        ValueError for another shape, TypeError for another type, IndexError for a token or action that does
        not exist.
        """
        return self._call(tokens, actions, mask)

    def initialize_from(self, codebook: torch.Tensor, seed: int = 0) -> None:
        """Starts token embeddings and output layer from a tokenizer's codebook (K,D), so that similar tokens
        start alike. Does nothing with dynamics.token_embedding "random"."""
        self._method("initialize_from")(codebook, checked_seed(seed))

    def features(self, tokens: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What the output layer sees: (B,T,N,E), E the transformer's width."""
        return self._method("features")(tokens, actions, mask)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """The output layer: features (...,E) to logits (...,K)."""
        return self._method("logits")(features)

    def cross_entropy(
        self,
        features: torch.Tensor,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        label_smoothing: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss that training takes: cross-entropy of the masked tokens, summed (divide by mask.sum()),
        and how many of them have the largest logit.

        features (B,T,N,E), tokens (B,T,N) and mask (B,T,N) as in `features`. Only masked tokens' logits are
        computed, some rows at a time: `genie_cpp.ops.linear_cross_entropy`.
        """
        return self._method("cross_entropy")(features, tokens, mask, label_smoothing)

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
        return self._method("generate")(
            self._arguments["config"],
            prompt_tokens,
            actions,
            checked_seed(seed),
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

    _class_name = "Genie"

    tokenizer: VideoTokenizer
    latent_action: LatentActionModel
    dynamics: DynamicsModel

    def __init__(self, config: ConfigLike) -> None:
        super().__init__(config)
        self.untrained: list[str] = []
        """The phases whose models load() found no checkpoint of."""

    def _adopt_child(self, name: str, handle: Any) -> Module:
        kinds = {"tokenizer": VideoTokenizer, "latent_action": LatentActionModel, "dynamics": DynamicsModel}
        return kinds[name]._made(handle, self._arguments["config"])

    def save_pretrained(self, run_dir: str | os.PathLike[str]) -> None:
        """Writes the configuration and the three models as a run directory.

        genie_cpp.load and from_pretrained read it, play and eval take it, and training with `resume` goes on
        from these weights at step 0. Raises GenieError where there is a run already.
        """
        self._synchronize()
        _C.save_genie(self._handle, os.fspath(run_dir))

    @classmethod
    def from_pretrained(cls, run_dir: str | os.PathLike[str]) -> Genie:
        """The models of a run directory; see genie_cpp.load."""
        return load(run_dir)

    def play(
        self,
        prompt: Prompt,
        seed: int = 0,
        *,
        steps: int | None = None,
        temperature: float | None = None,
        schedule: str | None = None,
        unmasking: str | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        context: int = 1,
        history: int | None = None,
        dtype: str | None = None,
    ) -> Session:
        """Begins a session: a world that takes an action and gives the next frame (genie_cpp.inference).

        `prompt`: "FILE.h5:FRAME" (with the `context` - 1 frames before it), uint8 frames (H,W,3), (T,H,W,3)
        or a batch (B,T,H,W,3), or float video (B,T,3,H,W) in [0,1], a batch too; frames of another size are
        resized. Actions between the prompt's frames are inferred. What is None is the configuration's
        (section `inference`). The session can be rewound by `history` steps; `dtype` "bfloat16" multiplies
        matrices in it, where the device can. The same seed and actions give the same frames.

        The model is put into evaluation mode and must keep its weights while sessions run. Raises GenieError
        for an option or prompt that does not fit.
        """
        from genie_cpp import inference

        return inference.play(
            self,
            prompt,
            seed,
            steps=steps,
            temperature=temperature,
            schedule=schedule,
            unmasking=unmasking,
            top_k=top_k,
            top_p=top_p,
            context=context,
            history=history,
            dtype=dtype,
        )

    def load_session(self, path: str | os.PathLike[str]) -> Session:
        """The session that Session.save wrote to a file; see Session.load."""
        from genie_cpp.inference import Session

        return Session.load(self, path)

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
    handle, untrained = _C.load_genie(os.fspath(run_dir), allow_untrained)
    genie = Genie._made(handle, handle.config)
    genie.untrained = untrained
    return genie if device is None else genie.to(device)
