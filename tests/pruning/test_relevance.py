"""Query attention equals eager attention, for grouped queries and any rows."""

from __future__ import annotations

import pytest
import torch

from omnidrop.pruning.parts.relevance import relevance, row_relevance


def eager(queries, keys, rows, columns, scaling):
    """Build the whole causal matrix, in float64, one head at a time."""
    heads, kv_heads = queries.shape[0], keys.shape[0]
    total = torch.zeros(len(columns), dtype=torch.float64)
    for head in range(heads):
        key = keys[head // (heads // kv_heads)].double()
        for i, row in enumerate(rows.tolist()):
            scores = queries[head, i].double() @ key.T * scaling
            scores[row + 1 :] = -torch.inf
            total += scores.softmax(0)[columns]
    return (total / (heads * len(rows))).float()


def problem(heads=6, kv_heads=2, length=37, width=16, rows=(33, 34, 36), dtype=torch.float32):
    draw = torch.Generator().manual_seed(3)
    place = torch.tensor(rows)
    queries = torch.randn(heads, len(rows), width, generator=draw).to(dtype)
    keys = torch.randn(kv_heads, length, width, generator=draw).to(dtype)
    columns = torch.arange(4, 30)
    return queries, keys, place, columns, width**-0.5


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4), (7, 1)])
@pytest.mark.parametrize("rows", [(36,), (33, 34, 36), (0, 10, 20, 36)])
@pytest.mark.parametrize("block", [1, 300, 10**6])
def test_equals_eager(heads, kv_heads, rows, block):
    args = problem(heads, kv_heads, rows=rows)
    got = relevance(*args, block_elements=block)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, eager(*args), atol=1e-6, rtol=1e-5)


def test_low_precision_is_summed_in_float32():
    args = problem(dtype=torch.bfloat16)
    torch.testing.assert_close(relevance(*args), eager(*args), atol=1e-3, rtol=2e-2)


def test_columns_after_the_rows_get_nothing():
    queries, keys, _, _, scaling = problem(rows=(5,))
    got = relevance(queries, keys, torch.tensor([5]), torch.arange(37), scaling)
    assert got[:6].sum() == pytest.approx(1.0, abs=1e-6)
    assert torch.equal(got[6:], torch.zeros(31))


def test_layouts_that_are_not_contiguous():
    queries, keys, rows, columns, scaling = problem()
    turned = queries.transpose(0, 1).contiguous().transpose(0, 1)
    want = relevance(queries, keys, rows, columns, scaling)
    torch.testing.assert_close(relevance(turned, keys, rows, columns, scaling), want)


def test_no_rows_is_an_error():
    queries, keys, rows, columns, scaling = problem()
    with pytest.raises(ValueError, match="at least one"):
        relevance(queries[:, :0], keys, rows[:0], columns, scaling)


@pytest.mark.parametrize("block", [1, 300, 10**6])
def test_rows_average_to_the_whole(block):
    queries, keys, rows, columns, scaling = problem()
    each = row_relevance(queries, keys, rows, columns, scaling, block_elements=block)
    assert each.shape == (3, 26)
    torch.testing.assert_close(each.mean(0), relevance(queries, keys, rows, columns, scaling))
    for i, row in enumerate(rows):
        alone = eager(queries[:, i : i + 1], keys, row[None], columns, scaling)
        torch.testing.assert_close(each[i], alone, atol=1e-6, rtol=1e-5)
