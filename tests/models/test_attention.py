"""Rotary embedding, and attention from few rows, equal transformers' results."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as reference

from omnidrop.models.attention import attend_from_few
from omnidrop.models.fused import rotate


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_decoders_queries_and_keys(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(1, 37, 6 * 16).to(dtype), torch.randn(1, 37, 2 * 16).to(dtype)
    queries, keys = (x.unflatten(2, (-1, 16)).transpose(1, 2) for x in (queries, keys))
    cos, sin = torch.rand(2, 1, 37, 16).sub(0.5).to(dtype)
    wanted = reference.apply_rotary_pos_emb(queries, keys, cos, sin)
    for states, expected in zip((queries, keys), wanted, strict=True):
        got = rotate(states, cos[:, None], sin[:, None])
        assert torch.equal(got, expected)
        assert got.dtype == dtype
        assert got.stride() == states.stride()


def test_the_vision_towers_queries_and_keys() -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 3, 20, 4, 8)
    cos, sin = torch.rand(2, 20, 8) - 0.5
    wanted = reference.apply_rotary_pos_emb_vision(queries, keys, cos, sin)
    for states, expected in zip((queries, keys), wanted, strict=True):
        assert torch.equal(rotate(states, cos.unsqueeze(-2), sin.unsqueeze(-2)), expected)


def test_rotation_does_not_change_its_input() -> None:
    states = torch.randn(1, 2, 5, 8)
    before = states.clone()
    rotate(states, torch.rand(1, 1, 5, 8), torch.rand(1, 1, 5, 8))
    assert torch.equal(states, before)


@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4), (3, 1)])
def test_few_rows_over_many_keys(heads: int, kv_heads: int) -> None:
    torch.manual_seed(0)
    queries = torch.randn(1, 5, heads, 16).transpose(1, 2)
    keys, values = torch.randn(2, 1, kv_heads, 40, 16)
    mask = torch.ones(5, 40, dtype=torch.bool).tril(35)[None, None]
    got = attend_from_few(queries, keys, values, mask, 0.25)
    repeated = (x.repeat_interleave(heads // kv_heads, 1) for x in (keys, values))
    wanted = scaled_dot_product_attention(queries, *repeated, attn_mask=mask, scale=0.25)
    torch.testing.assert_close(got, wanted.transpose(1, 2).flatten(2))
    assert got.shape == (1, 5, heads * 16)
