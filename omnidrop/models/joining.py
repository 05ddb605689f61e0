"""Linear layers with their weights side by side, at widths that a GPU's fast kernels take.

One product in place of two or three reads its input once. And 16-bit matrix kernels of NVIDIA GPUs
want rows of a multiple of 16 bytes; for other widths cuBLAS falls back to kernels of an older
generation, several times slower. Rows and columns of zeros change no number.

The library's modules keep their weights, shapes and results: their parameters become views of the
joined tensors, so nothing is held twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: Elements that a row must be a multiple of: 16 bytes of 16-bit numbers.
ALIGNED = 8
#: What a width is padded to a multiple of, the first that adds no more than `FREE`. A tile of a
#: product is 64 to 256 wide, so padding to it costs no more arithmetic than not padding.
STEPS = (128, 64, ALIGNED)
FREE = 0.02


class Product(NamedTuple):
    """A linear layer: a weight, (out, in), and a bias, (out,), or none."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, rows: Tensor) -> Tensor:
        """Apply it to (n, in); rows may be parts of wider ones."""
        # Two dimensions: with a third, PyTorch adds the bias in a pass of its own.
        if self.bias is None:
            return rows @ self.weight.t()
        return torch.addmm(self.bias, rows, self.weight.t())


def padded(width: int) -> int:
    """Return the width to pad to; the same for a width that fast kernels take as it is."""
    if width % ALIGNED == 0:
        return width
    padded_to = (-(-width // step) * step for step in STEPS)
    return next(to for to in padded_to if to <= width * (1 + FREE) or to - width < ALIGNED)


def join(linears: Sequence[Any], width: int | None = None) -> Product | None:
    """Put the rows of several linear layers' weights under each other.

    Parameters
    ----------
    linears : sequence of Module
        With one input.
    width : int, optional
        Rows that each gets, its own first and zeros after them; its own alone if left out.

    Returns
    -------
    Product or None
        None where one of them is not a plain linear layer (a quantised one, say), or they differ
        in dtype or in having a bias: then nothing is changed.
    """
    first = linears[0]
    if not all(type(linear) is nn.Linear for linear in linears):
        return None
    if len({(x.weight.dtype, x.bias is None, x.in_features) for x in linears}) > 1:
        return None
    sizes = [width or linear.out_features for linear in linears]
    ends = torch.tensor(sizes).cumsum(0).tolist()
    with torch.no_grad():
        weight = first.weight.new_zeros(ends[-1], first.in_features)
        bias = None if first.bias is None else first.bias.new_zeros(ends[-1])
        for linear, end, size in zip(linears, ends, sizes, strict=True):
            own = slice(end - size, end - size + linear.out_features)
            linear.weight = _moved(linear.weight, weight[own])
            if bias is not None:
                linear.bias = _moved(linear.bias, bias[own])
    return Product(weight, bias)


def widen(linear: Any, width: int) -> Product | None:
    """Give a linear layer an input of `width`, with weights of zero for what is new.

    Returns
    -------
    Product or None
        None where it is not a plain linear layer: then nothing is changed.
    """
    if type(linear) is not nn.Linear:
        return None
    if width == linear.in_features:
        return Product(linear.weight, linear.bias)
    with torch.no_grad():
        weight = linear.weight.new_zeros(linear.out_features, width)
        linear.weight = _moved(linear.weight, weight[:, : linear.in_features])
    return Product(weight, linear.bias)


def _moved(parameter: Tensor, place: Tensor) -> nn.Parameter:
    place.copy_(parameter)
    return nn.Parameter(place, requires_grad=False)
