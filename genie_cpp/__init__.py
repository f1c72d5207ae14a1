"""Genie world models: learn a playable world from plain video, with a C++ core.

Importing the package is cheap; torch and the C++ extension are loaded when something of them is first used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from genie_cpp.models import Genie

__version__ = "0.1.0"
__all__ = [
    "GenieError",
    "data",
    "errors",
    "evaluation",
    "gym",
    "inference",
    "load",
    "models",
    "nn",
    "ops",
    "play",
    "prompts",
    "training",
    "vision",
    "viz",
]

_SUBMODULES = frozenset(__all__) - {"GenieError", "load"}


def _minor(version: str) -> str:
    return ".".join(version.split("+")[0].split(".")[:2])


def _check_torch() -> None:
    """Raises ImportError where the installed torch is not the one the extension was compiled against."""
    from genie_cpp._build_info import TORCH_VERSION

    if importlib.util.find_spec("torch") is None:
        raise ImportError(
            f"genie_cpp needs torch, and none is installed: pip install torch=={TORCH_VERSION.split('+')[0]}"
        )
    try:
        installed = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:  # a torch built in place has no metadata
        import torch

        installed = torch.__version__
    if _minor(installed) != _minor(TORCH_VERSION):
        raise ImportError(
            f"genie_cpp was compiled against torch {TORCH_VERSION}, but torch {installed} is installed: "
            f"rebuild genie_cpp (pip install .) or install torch=={TORCH_VERSION.split('+')[0]}"
        )


_check_torch()


def load(run_dir: str | os.PathLike[str], **options: Any) -> Genie:
    """The trained world model of a run directory (as `genie-cpp train --out` writes it).

    Raises GenieError where the directory or a checkpoint is missing or does not fit its configuration.
    """
    from genie_cpp import models

    return models.load(run_dir, **options)


def __getattr__(name: str) -> Any:
    if name == "_C":
        import torch  # noqa: F401  (the extension's types derive from torch's)

        return importlib.import_module("genie_cpp._C")
    if name == "GenieError":
        return __getattr__("_C").GenieError
    if name in _SUBMODULES:
        return importlib.import_module(f"genie_cpp.{name}")
    raise AttributeError(f"module 'genie_cpp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
