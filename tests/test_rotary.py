"""Rotary angles against a loop, and against transformers' own for the usual three sections."""

from __future__ import annotations

import math

import pytest
import torch

from omnidrop.rotary import angles, frequencies, sync_sections, turned


def by_loops(positions, head_dim, theta, axes):
    """Angle of every channel: pair i turns by the position of its axis, at theta^(-2i/d)."""
    half = head_dim // 2
    return [
        [place[axes[i % half]] * theta ** (-2 * (i % half) / head_dim) for i in range(head_dim)]
        for place in positions.T.tolist()
    ]


def drawn(rows=40, most=3000):
    return torch.randint(0, most, (3, rows), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("head_dim", "sections"),
    [(128, (18, 18, 18, 10)), (64, (9, 9, 9, 5)), (16, (2, 2, 2, 2)), (16, (4, 2, 2))],
)
def test_each_section_turns_by_its_axis_and_the_last_by_time(head_dim, sections):
    axes = [axis for i, n in enumerate(sections) for axis in [(0, 1, 2, 0)[i]] * n]
    positions = drawn()
    cos, sin = angles(positions, frequencies(head_dim, 1e6), sections)
    wanted = by_loops(positions, head_dim, 1e6, axes)
    assert cos.shape == (40, head_dim)
    for found, function in ((cos, math.cos), (sin, math.sin)):
        exact = torch.tensor([[function(angle) for angle in row] for row in wanted])
        torch.testing.assert_close(found, exact, atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("pairs", "sections"),
    [(64, (18, 18, 18, 10)), (32, (9, 9, 9, 5)), (8, (2, 2, 2, 2)), (4, (1, 1, 1, 1))],
)
def test_sections_have_the_published_proportion(pairs, sections):
    assert sync_sections(pairs) == sections
    with pytest.raises(ValueError, match="four sections"):
        sync_sections(3)


def test_time_has_the_lowest_frequencies_and_rows_and_columns_do_not():
    """Two moments that M-RoPE's fast pairs cannot tell apart are told apart by slow ones."""
    positions = torch.zeros(3, 2, dtype=torch.int64)
    positions[0, 1] = 500
    cos, _ = angles(positions, frequencies(128, 1e6), (18, 18, 18, 10))
    moved = (cos[1] - cos[0]).abs()[:64] > 0
    assert bool(moved[54:60].all())
    assert not bool(moved[18:54].any())


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_the_usual_sections_give_transformers_angles_bit_for_bit(model, dtype):
    text = model.adapter._text
    rope = text.config.rope_parameters
    assert len(rope["mrope_section"]) == 3
    width = text.layers[0].self_attn.head_dim
    positions = drawn(257).to(dtype)
    cos, sin = model.adapter.rotary(positions)
    mine = angles(
        positions[:, None], frequencies(width, float(rope["rope_theta"])), rope["mrope_section"]
    )
    assert torch.equal(mine[0], cos)
    assert torch.equal(mine[1], sin)


def test_heads_are_turned_in_halves():
    states = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    cos, sin = angles(drawn(5), frequencies(8, 1e4), (1, 1, 1, 1))
    out = turned(states, cos, sin)
    for i in range(4):
        pair = torch.complex(states[..., i], states[..., i + 4])
        spun = pair * torch.complex(cos[:, i], sin[:, i])
        torch.testing.assert_close(out[..., i], spun.real)
        torch.testing.assert_close(out[..., i + 4], spun.imag)
