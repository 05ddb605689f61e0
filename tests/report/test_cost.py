"""Analytic cost against torch's own counter and against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from omnidrop.profiling import cost


@dataclass(frozen=True)
class Shape:
    layers: int = 3
    hidden: int = 32
    intermediate: int = 48
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 8
    vocab: int = 100


QWEN_7B = Shape(28, 3584, 18944, 28, 4, 128, 152064)


class Decoder(nn.Module):
    """The matrix products of a decoder layer, with nothing between them."""

    def __init__(self, s: Shape):
        super().__init__()
        width, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
        self.s = s
        self.q, self.k, self.v, self.o = (
            nn.Linear(a, b, bias=False)
            for a, b in ((s.hidden, width), (s.hidden, kv), (s.hidden, kv), (width, s.hidden))
        )
        self.gate, self.up = (nn.Linear(s.hidden, s.intermediate, bias=False) for _ in range(2))
        self.down = nn.Linear(s.intermediate, s.hidden, bias=False)

    def forward(self, x):
        s, n = self.s, x.shape[0]
        q = self.q(x).view(n, s.heads, s.head_dim).transpose(0, 1)
        k, v = (f(x).view(n, s.kv_heads, s.head_dim).transpose(0, 1) for f in (self.k, self.v))
        k, v = (t.repeat_interleave(s.heads // s.kv_heads, 0) for t in (k, v))
        scores = q @ k.transpose(1, 2)
        out = (scores @ v).transpose(0, 1).reshape(n, -1)
        x = self.o(out)
        return self.down(functional.silu(self.gate(x)) * self.up(x))


def test_a_layer_equals_the_counter():
    s, n = Shape(), 17
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Decoder(s)(torch.randn(n, s.hidden))
    # The counter sees whole squares; causal attention needs n(n+1)/2 of n² pairs.
    square = 4 * s.heads * s.head_dim * n * n
    causal = 2 * s.heads * s.head_dim * n * (n + 1)
    assert cost.layer_flops(s, n) == counter.get_total_flops() - square + causal
    assert sum(p.numel() for p in Decoder(s).parameters()) == cost.layer_weights(s)


def test_a_layer_asked_for_one_row_equals_the_counter():
    s, n = Shape(), 17
    d = Decoder(s)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        x = torch.randn(n, s.hidden)
        k, v = (f(x).view(n, s.kv_heads, s.head_dim).transpose(0, 1) for f in (d.k, d.v))
        k, v = (t.repeat_interleave(s.heads // s.kv_heads, 0) for t in (k, v))
        q = d.q(x[-1:]).view(1, s.heads, s.head_dim).transpose(0, 1)
        x = d.o((q @ k.transpose(1, 2) @ v).transpose(0, 1).reshape(1, -1))
        d.down(functional.silu(d.gate(x)) * d.up(x))
    assert cost.last_layer_flops(s, n) == counter.get_total_flops()
    assert cost.last_layer_flops(s, 1) == cost.layer_flops(s, 1)
    whole, run = (cost.prefill_flops(s, 5, (20, 10, 0), as_run=flag) for flag in (False, True))
    assert whole - run == cost.layer_flops(s, 5) - cost.last_layer_flops(s, 5)
    assert cost.prefill_flops(s, 0, (), as_run=True) == cost.head_flops(s)


def test_prefill_sums_layers_and_one_row_of_logits():
    s = Shape()
    want = sum(cost.layer_flops(s, 5 + n) for n in (20, 10, 0)) + 2 * 32 * 100
    assert cost.prefill_flops(s, 5, (20, 10, 0)) == want
    assert isinstance(cost.prefill_flops(s, 5, (20, 10, 0)), float)
    assert cost.prefill_flops(s, 0, ()) == 2 * 32 * 100


def test_prefill_of_the_7b():
    """6.53 B weights outside the tables, as published: 13 GFLOPs a token, and attention on top."""
    assert 28 * cost.layer_weights(QWEN_7B) == 6_525_288_448
    full = cost.prefill_flops(QWEN_7B, 100, (8000,) * 28)
    linear = 2 * 8100 * 6_525_288_448
    assert 1.05 < full / linear < 1.2
    # Attention falls with the square, so 35 % of the tokens cost a little less than 35 %.
    assert 0.32 < cost.prefill_flops(QWEN_7B, 100, (2800,) * 28) / full < 0.35


def test_decoding_one_token_by_hand():
    s = Shape(layers=1)
    # Weights: 32·(4+2+2+4)·8 + 3·32·48 = 7680; the new token sees 10 cached ones and itself.
    assert cost.layer_weights(s) == 7680
    assert cost.decode_flops(s, (10,), 1) == 2 * 7680 + 4 * 32 * 11 + 2 * 3200
    assert cost.decode_flops(s, (10,), 3) == 3 * (2 * 7680 + 2 * 3200) + 4 * 32 * (11 + 12 + 13)
    assert cost.decode_flops(s, (10,), 0) == 0


def test_decoding_continues_prefill():
    """Prefilling n + 1 tokens is prefilling n and decoding one, but for the extra logits."""
    s, n = Shape(), 12
    both = cost.prefill_flops(s, n, (0,) * 3) + cost.decode_flops(s, (n,) * 3, 1)
    assert both - cost.head_flops(s) == cost.prefill_flops(s, n + 1, (0,) * 3)


def test_selection_is_cheap():
    s = Shape()
    assert cost.selection_flops(s, 2, (10, 5)) == 2 * 2 * 32 * ((32 + 10) + (32 + 5))
    scoring = cost.selection_flops(QWEN_7B, 20, (8000,) * 28)
    assert scoring < 0.002 * cost.prefill_flops(QWEN_7B, 100, (8000,) * 28)


def test_cache_bytes():
    assert cost.kv_bytes(Shape(), (3, 2, 1), 2) == 2 * 2 * 8 * 6 * 2
    # 28 layers · 2 · 4 heads · 128 · 2 bytes = 57 344 bytes a token.
    assert cost.kv_bytes(QWEN_7B, (1,) * 28) == 57344


def test_weight_bytes():
    parameters = cost.weights_bytes(QWEN_7B, 1, head_bytes=1)
    assert parameters == 7_615_616_512  # Qwen2.5-7B's own count
    assert cost.weights_bytes(QWEN_7B) == 2 * parameters
    assert cost.weights_bytes(QWEN_7B, 4) == 4 * parameters
    tables = 152064 * 3584
    assert cost.weights_bytes(QWEN_7B, tied=True) == 2 * (parameters - tables)
    assert cost.weights_bytes(QWEN_7B, 0.5) < 0.6e10


def test_a_tower_equals_the_counter():
    s = Shape(heads=4, kv_heads=4)  # 4 heads of 8 make the hidden width
    windows = (6, 6, 3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer = Decoder(s)
        for n in windows:
            layer(torch.randn(n, s.hidden))
    assert cost.tower_flops(Shape(layers=1), windows, gated=True) == counter.get_total_flops()


def test_towers_with_wide_layers_and_other_weights():
    s = Shape(layers=4)
    narrow = cost.tower_flops(s, (4, 4))
    wide = cost.tower_flops(s, (4, 4), full=(8,), full_layers=1)
    assert wide - narrow == 4 * 32 * (64 - 32)
    assert cost.tower_flops(s, (4, 4), other_weights=7) - narrow == 2 * 8 * 7
    assert cost.tower_flops(s, (4, 4), gated=True) - narrow == 2 * 8 * 4 * 32 * 48
