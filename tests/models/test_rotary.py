"""Turning by position gives the library's bits."""

from __future__ import annotations

import pytest
import torch
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as reference

from omnidrop.models.rotary import rotate


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


def test_the_states_stay_as_they_were() -> None:
    states = torch.randn(1, 2, 5, 8)
    before = states.clone()
    rotate(states, torch.rand(1, 1, 5, 8), torch.rand(1, 1, 5, 8))
    assert torch.equal(states, before)
