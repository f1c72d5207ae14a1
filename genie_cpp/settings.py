"""Settings of the Python side from YAML files: dataclasses with strict keys; where to compute."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from genie_cpp.config_values import _Loader
from genie_cpp.errors import GenieError

T = TypeVar("T")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def read_settings(
    cls: type[T],
    path: str | Path | None,
    overrides: Sequence[str] = (),
    base: dict[str, Any] | None = None,
) -> T:
    """The dataclass `cls` from a YAML file and "section.key=value" entries (values as YAML), over `base`.

    Raises GenieError for a file that is no YAML, an unknown key (naming the nearest) or a value of another
    type.
    """
    content = _merged(base or {}, {} if path is None else _read(path))
    for entry in overrides:
        key, equals, value = entry.partition("=")
        if not equals:
            raise GenieError(f"expected key=value, got {entry!r}")
        *sections, last = key.split(".")
        place = content
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise GenieError(f"{key}: {section} is no section")
        place[last] = yaml.load(value, Loader=_Loader)
    return from_mapping(cls, content, "the settings" if path is None else str(path))


def _read(path: str | Path) -> dict[str, Any]:
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GenieError(f"{path}: can't be read as YAML ({error})") from error
    if not isinstance(content, dict):
        raise GenieError(f"{path}: expected keys and values, got {type(content).__name__}")
    return content


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A copy of `base` in which sections take the keys of `over`'s, and all else is replaced."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        mine = result.get(key)
        result[key] = _merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return result


def from_mapping(cls: type[T], content: dict[str, Any], where: str) -> T:
    """The dataclass `cls` from nested dictionaries; `where` names them in errors."""
    types_of = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in content:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(fields)}"
            raise GenieError(f"{where}: unknown key {key!r}; {hint}")
    required = (dataclasses.MISSING, dataclasses.MISSING)
    for name, field in fields.items():
        if name not in content and (field.default, field.default_factory) == required:
            raise GenieError(f"{where}: the key {name!r} is missing")
    return cls(**{key: _value(types_of[key], value, f"{where}: {key}") for key, value in content.items()})


def _value(wanted: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        wanted = next(choice for choice in inner if choice is not type(None))
        return _value(wanted, value, where)
    if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
        if isinstance(value, dict):
            return from_mapping(wanted, value, where)
    elif origin is dict:
        if isinstance(value, dict):
            return {str(key): _value(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    elif origin in (list, tuple):
        if isinstance(value, (list, tuple)):
            return origin(_value(inner[0], item, where) for item in value)
    elif wanted is Any:
        return value
    elif wanted is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    name = getattr(origin or wanted, "__name__", str(wanted))
    raise GenieError(f"{where}: expected {name}, got {value!r}")


def find_device(name: str = "auto") -> torch.device:
    """`name`, or with "auto" a CUDA device where there is one and its kernels are enabled (ops.py)."""
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise GenieError(f"device must be auto, cpu or cuda, got {name!r}") from error
    from genie_cpp import ops

    return torch.device("cuda" if ops.cuda_kernels_enabled() and torch.cuda.is_available() else "cpu")


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """`name`, or with "auto" bfloat16 on a GPU that computes in it and float32 elsewhere."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    if name not in DTYPES:
        raise GenieError(f"dtype must be auto, {' or '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]
