"""A device that is not there: tensors that say they are elsewhere and compute on the CPU.

`Elsewhere` mixed with an ordinary tensor raises, as a GPU would, so that code which forgets to move
something is found on a machine without one. Numbers without dimensions may mix, and indices may be
on the CPU, as for a GPU. The device is called "meta", the one name that PyTorch accepts everywhere;
nothing of its own is used. `torch.inference_mode` does not go with it: put `torch.no_grad` in its
place before the code is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")

#: Operations whose result has a size, or a place, that the host must learn from the device.
WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "repeat_interleave.Tensor")

_no_stops = False


@contextmanager
def no_stops() -> Iterator[None]:
    """Raise where the host would wait for the device: to copy from it, or to learn a size."""
    global _no_stops
    before, _no_stops = _no_stops, True
    try:
        yield
    finally:
        _no_stops = before


def _stops(name: str, args: Any, asked: list[torch.device]) -> bool:
    """Whether an operation on tensors elsewhere makes the host wait."""
    if any(word in name for word in WAITING):
        return True
    if name.startswith(("aten::index.", "aten::index_put")):
        return any(isinstance(x, torch.Tensor) and x.dtype == torch.bool for x in args[1])
    if name.startswith("aten::copy_"):
        return isinstance(args[1], Elsewhere) != isinstance(args[0], Elsewhere)
    return bool(asked) and asked[-1] != DEVICE


class Elsewhere(torch.Tensor):
    """A tensor elsewhere; `held` is where its numbers are."""

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Elsewhere:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"Elsewhere{tuple(self.shape)}"

    def tolist(self) -> Any:
        if _no_stops:
            raise RuntimeError("tolist waits for the device")
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _held(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.held if isinstance(value, Elsewhere) else value


def _wrapped(value: Any) -> Any:
    return Elsewhere(value) if isinstance(value, torch.Tensor) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = func.name()
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    if name.startswith(("aten::index.", "aten::index_put")) and isinstance(args[0], Elsewhere):
        tensors = [x for x in (args[0], *args[2:]) if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    here = [tuple(x.shape) for x in tensors if not isinstance(x, Elsewhere) and x.ndim]
    if there and here and "copy" not in name:
        raise RuntimeError(f"{name} mixes devices: {here} is on the CPU")
    asked = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.device)]
    if _no_stops and there and _stops(name, args, asked):
        raise RuntimeError(f"{name} waits for the device")
    out = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    first = func._schema.arguments[0].alias_info if func._schema.arguments else None
    if first is not None and first.is_write:
        return args[0]
    goes = asked[-1] == DEVICE if asked else bool(there)
    return tree_map(_wrapped, out) if goes and "local_scalar" not in name else out


def move(module: nn.Module) -> None:
    """Put a module's parameters and buffers elsewhere."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and not isinstance(parameter.data, Elsewhere):
                part._parameters[name] = nn.Parameter(Elsewhere(parameter.detach().clone()))
        for name, buffer in part._buffers.items():
            if buffer is not None and not isinstance(buffer, Elsewhere):
                part._buffers[name] = Elsewhere(buffer.clone())


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Make tensors that are asked for on the device, or moved to it, be elsewhere."""
    make = torch.tensor

    def tensor(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        made = make(*args, **kwargs)
        there = device is not None and torch.device(device) == DEVICE
        return Elsewhere(made) if there else made

    with (
        mock.patch("torch.tensor", tensor),  # it makes its numbers before PyTorch's dispatch
        mock.patch("torch.autocast", return_value=nullcontext()),  # knows real devices alone
        _Mode(),
    ):
        yield DEVICE
