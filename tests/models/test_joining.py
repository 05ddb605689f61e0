"""Joined and padded products equal the linear layers they were made from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from omnidrop.models.joining import Product, join, padded, widen


def whole(*size: int) -> torch.Tensor:
    """Small whole numbers: sums of their products are exact in any order."""
    return torch.randint(-4, 5, size).float()


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    made = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        made.weight.copy_(whole(outputs, inputs))
        if bias:
            made.bias.copy_(whole(outputs))
    return made


@pytest.mark.parametrize(
    ("width", "wanted"),
    [(3420, 3456), (5120, 5120), (3424, 3424), (8, 8), (100, 104), (1, 8), (1283, 1288)],
)
def test_widths(width: int, wanted: int) -> None:
    assert padded(width) == wanted


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [None, 16])
def test_joined_layers(bias: bool, width: int | None) -> None:
    torch.manual_seed(0)
    layers = [linear(6, 10, bias), linear(6, 13, bias)]
    rows = whole(5, 6)
    wanted = [layer(rows) for layer in layers]
    joined = join(layers, width)
    assert joined is not None
    got = joined(rows)
    first, second = got.split((width or 10, width or 13), dim=1)
    assert torch.equal(first[:, :10], wanted[0])
    assert torch.equal(second[:, :13], wanted[1])
    assert not first[:, 10:].any()
    assert not second[:, 13:].any()
    # The layers still give the same results, from the same memory.
    for layer, out in zip(layers, wanted, strict=True):
        assert torch.equal(layer(rows), out)
        assert layer.weight.shape == (out.shape[1], 6)
        storage = layer.weight.untyped_storage().data_ptr()
        assert storage == joined.weight.untyped_storage().data_ptr()


def test_padding_the_input() -> None:
    torch.manual_seed(0)
    layer, rows = linear(10, 6), torch.cat([whole(5, 10), torch.zeros(5, 6)], 1)
    wanted = layer(rows[:, :10])
    wide = widen(layer, 16)
    assert wide is not None
    assert wide.weight.shape == (6, 16)
    assert torch.equal(wide(rows), wanted)
    assert torch.equal(layer(rows[:, :10]), wanted)
    assert layer.weight.untyped_storage().data_ptr() == wide.weight.untyped_storage().data_ptr()
    assert widen(layer, 10) == Product(layer.weight, layer.bias)


def test_other_layers_are_not_changed() -> None:
    class Quantised(nn.Linear):
        pass

    plain, other = linear(4, 4), Quantised(4, 4)
    before = plain.weight
    assert join([plain, other]) is None
    assert join([plain, linear(4, 4, bias=False)]) is None
    assert join([plain, linear(4, 4).half()]) is None
    assert widen(other, 8) is None
    assert plain.weight is before
