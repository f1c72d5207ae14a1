"""A configuration as plain Python values, and changed copies of one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import yaml

from genie_cpp import _C

ConfigLike: TypeAlias = "_C.Config | str | os.PathLike[str] | Mapping[str, Any]"


def as_config(config: ConfigLike) -> _C.Config:
    """A Config from one, from the path of a YAML file, or from nested dictionaries of changed keys."""
    if isinstance(config, _C.Config):
        return config
    if isinstance(config, Mapping):
        return _C.Config.parse(yaml.safe_dump(dict(config)), "config")
    return _C.Config.load(os.fspath(config))


class _Loader(yaml.SafeLoader):
    """PyYAML reads 1e-3 as text, unlike YAML 1.2 and the C++ side."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def values(config: _C.Config) -> dict[str, Any]:
    """All keys of a configuration as nested dictionaries."""
    return yaml.load(config.to_yaml(), Loader=_Loader)


def changed(config: _C.Config, *entries: str) -> _C.Config:
    """A copy with "section.key=value" entries set, checked like a file's own."""
    copy = _C.Config.parse(config.to_yaml())
    copy.override(list(entries))
    return copy


def clip_length(config: _C.Config, model: str) -> int:
    """Frames of the clips that train `model`: its phase's num_frames, or data.num_frames where that is 0."""
    settings = values(config)
    phase = model if model in _C.phase_names(config) else "cotrain"
    return settings["training"][phase]["num_frames"] or settings["data"]["num_frames"]
