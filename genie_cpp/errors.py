"""The error of everything a user can put right: it says what was expected, what was found, and the remedy."""

from __future__ import annotations

from genie_cpp import _C

GenieError = _C.GenieError

__all__ = ["GenieError"]
