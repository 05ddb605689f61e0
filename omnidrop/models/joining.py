"""Joins linear layers that share an input, and pads their widths for a GPU's fast kernels.

One matrix product instead of two or three reads its input once. And 16-bit matrix kernels of NVIDIA
GPUs need rows of a multiple of 16 bytes; for other widths cuBLAS falls back to kernels of an older
generation, several times slower. Padding with zeros does not change results.

The modules of transformers keep their weights, shapes and results: their parameters become views of
the joined tensors, so nothing is stored twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

#: A row's elements must be a multiple of this: 16 bytes of 16-bit numbers.
ALIGNED = 8
#: A width is padded to a multiple of the first of these that adds at most a share of `FREE`. A tile
#: of a matrix product is 64 to 256 wide, so padding to it adds no arithmetic.
STEPS = (128, 64, ALIGNED)
FREE = 0.02


class Product(NamedTuple):
    """A linear layer as tensors: a weight, (out, in), and a bias, (out,), or None."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, rows: Tensor) -> Tensor:
        """Apply the layer to (n, in); rows may be slices of wider ones."""
        # In two dimensions: with three, PyTorch adds the bias in a separate pass.
        if self.bias is None:
            return rows @ self.weight.t()
        return torch.addmm(self.bias, rows, self.weight.t())


def padded(width: int) -> int:
    """Return the width to pad to; `width` itself if fast kernels take it."""
    if width % ALIGNED == 0:
        return width
    padded_to = (-(-width // step) * step for step in STEPS)
    return next(to for to in padded_to if to <= width * (1 + FREE) or to - width < ALIGNED)


def join(linears: Sequence[Any], width: int | None = None) -> Product | None:
    """Concatenate the outputs of several linear layers into one product.

    Parameters
    ----------
    linears : sequence of Module
        Layers with the same input.
    width : int, optional
        Pad the outputs of each layer to this width with zeros; default no padding.

    Returns
    -------
    Product or None
        None, with nothing changed, if one of them is not a plain linear layer (a quantised one,
        say), or they differ in dtype or in having a bias.
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
    """Pad a linear layer's input to `width`, with zero weights.

    Returns
    -------
    Product or None
        None, with nothing changed, if it is not a plain linear layer.
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
