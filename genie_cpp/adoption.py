"""C++ modules as ordinary `torch.nn.Module`s.

A `Module` *adopts* a C++ module tree: every C++ parameter and buffer is registered under its name, every
child becomes a nested `Part`. They are the same tensors on both sides, so whatever works on tensors
(state dicts, optimizers, `requires_grad_`, gradient clipping, `.to()`, hooks on tensors) needs nothing
further. What Python could change behind the C++ code's back is caught before each forward: an exchanged
tensor is handed to the C++ module, an exchanged child is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from genie_cpp import _C

__all__ = ["Module", "Part"]

_Self = TypeVar("_Self", bound="Module")

# Attributes of an adopting module that belong to one C++ tree and are not copied.
_ADOPTION = ("_handle", "_kind", "_arguments", "_adopted_tensors", "_adopted_children", "_called_by_cpp")
_REGISTRIES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class Module(torch.nn.Module):
    """Base of the classes whose computation is a C++ module.

    `Module(kind, arguments)` builds the C++ class `kind` of the extension with keyword `arguments` and
    adopts it. Copies and pickles rebuild it from the same arguments and carry parameters (with their
    ties to other modules and `requires_grad`), buffers, training modes, hooks and further attributes
    over.
    """

    _handle: Any  # the C++ module
    _kind: str
    _arguments: dict[str, Any]
    _adopted_tensors: dict[str, Tensor | None]
    _adopted_children: dict[str, Module]
    _called_by_cpp: bool = False  # by the C++ module around it, past Python

    def __init__(self, kind: str, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self._build(kind, dict(arguments))

    def _build(self, kind: str, arguments: dict[str, Any]) -> None:
        cls = getattr(_C.nn, kind, None) or getattr(_C, kind)
        self.__dict__.update(_kind=kind, _arguments=arguments)
        self._adopt(cls(**arguments))

    @classmethod
    def _of(cls: type[_Self], handle: Any, kind: str, arguments: dict[str, Any]) -> _Self:
        """The Python side of a C++ module that there is already, made of `arguments`."""
        module = cls.__new__(cls)
        torch.nn.Module.__init__(module)
        module.__dict__.update(_kind=kind, _arguments=arguments)
        module._adopt(handle)
        return module

    def _adopt(self, handle: Any) -> None:
        self.__dict__["_handle"] = handle
        tensors: dict[str, Tensor | None] = {}
        children: dict[str, Module] = {}
        for name, tensor in handle.own_parameters():
            if tensor is not None:
                tensor.__class__ = Parameter
            self.register_parameter(name, cast("Parameter | None", tensor))
            tensors[name] = tensor
        for name, tensor in handle.own_buffers():
            self.register_buffer(name, tensor)
            tensors[name] = tensor
        for name, tensor in handle.derived_buffers():
            self.register_buffer(name, tensor, persistent=False)
        for name, child in handle.own_children():
            children[name] = self._adopt_child(name, child)
            self.add_module(name, children[name])
        # Past nn.Module.__setattr__: these are no submodules and no parameters.
        self.__dict__.update(_adopted_tensors=tensors, _adopted_children=children)
        self.__dict__["training"] = handle.training

    def _adopt_child(self, name: str, handle: Any) -> Module:
        """The Python side of a child: a Part, unless a class knows better."""
        return Part(handle)

    # What Python may exchange.

    def _synchronize(self) -> None:
        """Hands tensors that were exchanged in Python to the C++ module, and refuses exchanged children."""
        for name, adopted in self._adopted_tensors.items():
            current: Tensor | None = self._parameters.get(name)
            if current is None:
                current = self._buffers.get(name)
            if current is None and adopted is not None:
                current = getattr(self, name, None)  # computed by a parametrization
            if current is adopted:
                continue
            if current is None or adopted is None:
                change = "removed" if current is None else "added"
                raise RuntimeError(
                    f"{self._get_name()}: '{name}' was {change}, but the C++ module was built the other way; "
                    "build it with other arguments instead"
                )
            self._handle.rebind(name, current)
            self._adopted_tensors[name] = current
        for name, child in self._adopted_children.items():
            if self._modules.get(name) is not child:
                raise RuntimeError(self._exchange_message(name))
            child._synchronize()

    def _exchange_message(self, name: str) -> str:
        return (
            f"{self._get_name()}: the child '{name}' can't be exchanged: the C++ forward calls its own. "
            "Load weights into it, or write the block out of the parts in Python"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_adopted_children", ()) and self._modules.get(name) is not value:
            raise RuntimeError(self._exchange_message(name))
        super().__setattr__(name, value)
        if name == "training" and "_handle" in self.__dict__:
            self._synchronize_training()

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__.get("_adopted_children", ()):
            raise RuntimeError(self._exchange_message(name))
        super().__delattr__(name)

    def add_module(self, name: str, module: torch.nn.Module | None) -> None:
        if name in self.__dict__.get("_adopted_children", ()):
            raise RuntimeError(self._exchange_message(name))
        super().add_module(name, module)

    def _synchronize_training(self) -> None:
        """The C++ switch works on whole trees, so children get their own mode back after it."""
        self._handle.train(self.training)
        for child in self._adopted_children.values():
            child._synchronize_training()

    def _apply(self: _Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Self:
        super()._apply(fn, recurse)
        self._synchronize()
        self._refresh_derived_buffers()
        return self

    def _refresh_derived_buffers(self) -> None:
        self._handle.rebuild_derived_buffers()
        for name, tensor in self._handle.derived_buffers():
            self._buffers[name] = tensor

    # Forward, copies, looks.

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        """The C++ forward with these arguments."""
        return self._method("forward")(*args, **kwargs)

    def _method(self, name: str) -> Any:
        """A method of the C++ module, which has been told what was exchanged."""
        self._synchronize()
        return getattr(self._handle, name)

    def _check_hook(self) -> None:
        if self._called_by_cpp:
            raise RuntimeError(
                f"{self._get_name()} is called by C++ code, so a hook on it would never run; register it on "
                "the outer module, on a tensor, or on a block that stands by itself"
            )

    def register_forward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        self._check_hook()
        return super().register_forward_hook(*args, **kwargs)

    def register_forward_pre_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        self._check_hook()
        return super().register_forward_pre_hook(*args, **kwargs)

    def register_full_backward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        self._check_hook()
        return super().register_full_backward_hook(*args, **kwargs)

    def register_full_backward_pre_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        self._check_hook()
        return super().register_full_backward_pre_hook(*args, **kwargs)

    def register_backward_hook(self, *args: Any, **kwargs: Any) -> RemovableHandle:
        self._check_hook()
        return super().register_backward_hook(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._kind, self._arguments), self._state()

    def _nodes(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self._adopted_children.items():
            yield from child._nodes(f"{prefix}{name}.")

    def _state(self) -> dict[str, Any]:
        tensors: dict[str, Tensor] = {}
        training: dict[str, bool] = {}
        for prefix, node in self._nodes():
            training[prefix] = node.training
            for name, adopted in node._adopted_tensors.items():
                if adopted is None:
                    continue
                current: Tensor | None = node._parameters.get(name)
                current = node._buffers.get(name) if current is None else current
                if current is None:
                    raise TypeError(
                        f"{self._get_name()}: a parametrized tensor ('{prefix}{name}') can't be copied"
                    )
                tensors[prefix + name] = current
        own = {
            *self._adopted_tensors,
            *self._adopted_children,
            *(name for name, _ in self._handle.derived_buffers()),
        }
        extra = {key: value for key, value in self.__dict__.items() if key not in _ADOPTION + _REGISTRIES}
        registered = {
            key: {name: value for name, value in self.__dict__[key].items() if name not in own}
            for key in ("_parameters", "_buffers", "_modules")
        }
        return {"tensors": tensors, "training": training, "extra": extra, "registered": registered}

    def __setstate__(self, state: dict[str, Any]) -> None:
        nodes = dict(self._nodes())
        for path, tensor in state["tensors"].items():
            prefix, _, name = path.rpartition(".")
            node = nodes[f"{prefix}." if prefix else ""]
            registry: dict[str, Any] = node._parameters if name in node._parameters else node._buffers
            registry[name] = tensor
        self.__dict__.update(state["extra"])
        for key, entries in state["registered"].items():
            self.__dict__[key].update(entries)
        self._synchronize()
        for prefix, node in nodes.items():
            node.__dict__["training"] = state["training"][prefix]
            node._refresh_derived_buffers()
        self._synchronize_training()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())


class Part(Module):
    """A module inside an adopted tree. It can be called by itself; the C++ code around it doesn't call
    it through Python, so hooks on it are refused. Numbered parts (lists of blocks) are indexed and
    iterated over."""

    _description: str
    _called_by_cpp = True

    def __init__(self, handle: Any) -> None:
        torch.nn.Module.__init__(self)
        self._adopt(handle)
        self.__dict__["_description"] = handle.describe()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self._handle, "forward"):
            raise NotImplementedError(
                f"{self._get_name()} can't be called by itself; call the module around it"
            )
        return self._call(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        raise TypeError(f"{self._get_name()} is part of a C++ module; copy the one around it")

    def __len__(self) -> int:
        return len(self._adopted_children)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[torch.nn.Module]:
        return iter(self._adopted_children.values())

    def __getitem__(self, index: int) -> torch.nn.Module:
        children = list(self._adopted_children.values())
        if not children:
            raise TypeError(f"{self._get_name()} is no list of modules")
        return children[index]

    def _get_name(self) -> str:
        name: str = self._description.partition("(")[0].rpartition("::")[2]
        return name.removesuffix("Impl")

    def extra_repr(self) -> str:
        _, bracket, rest = self._description.partition("(")
        if not bracket or self._adopted_children:
            return ""
        return rest.rpartition(")")[0].replace("=true", "=True").replace("=false", "=False")


def _rebuild(cls: type[Module], kind: str, arguments: dict[str, Any]) -> Module:
    """An adopted module with fresh weights, made without the constructor of `cls` and without drawing
    from torch's generator."""
    module = cls.__new__(cls)
    torch.nn.Module.__init__(module)
    with torch.random.fork_rng(devices=[]):
        module._build(kind, copy.deepcopy(arguments))
    return module
