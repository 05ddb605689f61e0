"""Which attention kernel is chosen, and the planless kernels against torch's attention."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from omnidrop.models.kernels import (
    PLANNED_FROM,
    Choice,
    Filled,
    choose,
    masked,
    over_filled,
    planless,
)

GPU = torch.device("cuda")


@pytest.mark.parametrize("device", ["cpu", "mps", "meta"])
def test_on_other_devices_torch_chooses(device: str) -> None:
    for rows, keys, shared in [(1, 9, False), (70, 900, False), (PLANNED_FROM, PLANNED_FROM, True)]:
        assert choose(torch.device(device), rows, keys, shared=shared) is Choice.TORCH


def test_a_plan_is_built_only_for_many_rows_of_one_length() -> None:
    many = PLANNED_FROM
    assert choose(GPU, many, many, shared=True) is Choice.TORCH
    assert choose(GPU, many, many, shared=False) is Choice.PLANLESS
    assert choose(GPU, many - 1, many - 1, shared=True) is Choice.PLANLESS
    assert choose(GPU, many, many + 1, shared=True) is Choice.PLANLESS
    assert choose(GPU, 1, 1, shared=True) is Choice.PLANLESS


def qkv(rows: int, keys: int, heads: int = 6, kv_heads: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    sizes = (heads, rows), (kv_heads, keys), (kv_heads, keys)
    return [torch.randn(2, h, n, 16, generator=generator) for h, n in sizes]


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize("rows", [1, 5, 30])
@pytest.mark.parametrize("causal", [True, False])
def test_planless_attention_is_attention(heads, kv_heads, rows, causal) -> None:
    query, key, value = qkv(rows, 30, heads, kv_heads)
    seen = torch.ones(rows, 30, dtype=torch.bool)
    wanted = scaled_dot_product_attention(
        query,
        *(x.repeat_interleave(heads // kv_heads, 1) for x in (key, value)),
        attn_mask=seen.tril(30 - rows) if causal else seen,
        scale=0.3,
    )
    got = planless(query, key, value, causal=causal, scaling=0.3)
    torch.testing.assert_close(got, wanted.transpose(1, 2))


@pytest.mark.parametrize("used", [1, 7, 32])
def test_spare_room_is_not_attended_to(used: int) -> None:
    query, key, value = (x[:1] for x in qkv(1, 32))
    filled = Filled(
        torch.tensor([used], dtype=torch.int32),
        torch.tensor([0, 1], dtype=torch.int32),
        torch.tensor([0, 32], dtype=torch.int32),
    )
    got = over_filled(query, key, value, filled, scaling=0.3)
    wanted = planless(query, key[:, :, :used], value[:, :, :used], causal=False, scaling=0.3)
    torch.testing.assert_close(got, wanted)
    assert got.shape == (1, 1, 6, 16)


def test_products_stay_in_the_range_of_float16() -> None:
    query = torch.full((1, 2, 1, 16), 200.0, dtype=torch.float16)
    key = torch.full((1, 1, 3, 16), 200.0, dtype=torch.float16)
    value = torch.arange(3, dtype=torch.float16).view(1, 1, 3, 1).expand(1, 1, 3, 16)
    got = masked(query, key, value, torch.ones(1, 3, dtype=torch.bool), 0.01)
    torch.testing.assert_close(got, torch.ones_like(got))
