"""Analytic cost against torch's own counter and against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from omnidrop.report.model_sizes import described
from omnidrop.shapes import (
    MLP_ROWS,
    MLP_ROWS_GPU,
    AudioShape,
    Experts,
    Projections,
    Shapes,
    TextShape,
    VisionShape,
)

SMALL = TextShape(3, 32, 48, 4, 2, 8, 100)
QWEN_7B = TextShape(28, 3584, 18944, 28, 4, 128, 152064)


class Decoder(nn.Module):
    """The matrix products of a decoder layer, with nothing between them."""

    def __init__(self, s: TextShape):
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
    s, n = SMALL, 17
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Decoder(s)(torch.randn(n, s.hidden))
    # The counter sees whole squares; causal attention needs n(n+1)/2 of n² pairs.
    square = 4 * s.heads * s.head_dim * n * n
    causal = 2 * s.heads * s.head_dim * n * (n + 1)
    assert s.layer_flops(n) == counter.get_total_flops() - square + causal
    assert s.two_way_flops(n, 3) == 3 * counter.get_total_flops()
    assert s.two_way_flops(n, 0) == 0
    assert sum(p.numel() for p in Decoder(s).parameters()) == s.layer_weights()


def test_a_layer_asked_for_one_row_equals_the_counter():
    s, n = SMALL, 17
    d = Decoder(s)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        x = torch.randn(n, s.hidden)
        k, v = (f(x).view(n, s.kv_heads, s.head_dim).transpose(0, 1) for f in (d.k, d.v))
        k, v = (t.repeat_interleave(s.heads // s.kv_heads, 0) for t in (k, v))
        q = d.q(x[-1:]).view(1, s.heads, s.head_dim).transpose(0, 1)
        x = d.o((q @ k.transpose(1, 2) @ v).transpose(0, 1).reshape(1, -1))
        d.down(functional.silu(d.gate(x)) * d.up(x))
    assert s.last_layer_flops(n) == counter.get_total_flops()
    assert s.last_layer_flops(1) == s.layer_flops(1)
    whole, run = (s.prefill_flops(5, (20, 10, 0), as_run=flag) for flag in (False, True))
    assert whole - run == s.layer_flops(5) - s.last_layer_flops(5)
    assert s.prefill_flops(0, (), as_run=True) == s.head_flops


def test_prefill_sums_layers_and_one_row_of_logits():
    s = SMALL
    want = sum(s.layer_flops(5 + n) for n in (20, 10, 0)) + 2 * 32 * 100
    assert s.prefill_flops(5, (20, 10, 0)) == want
    assert isinstance(s.prefill_flops(5, (20, 10, 0)), float)
    assert s.prefill_flops(0, ()) == 2 * 32 * 100


def test_prefill_of_the_7b():
    """6.53 B weights outside the tables, as published: 13 GFLOPs a token, and attention on top."""
    assert 28 * QWEN_7B.layer_weights() == 6_525_288_448
    full = QWEN_7B.prefill_flops(100, (8000,) * 28)
    linear = 2 * 8100 * 6_525_288_448
    assert 1.05 < full / linear < 1.2
    # Attention falls with the square, so 35 % of the tokens cost a little less than 35 %.
    assert 0.32 < QWEN_7B.prefill_flops(100, (2800,) * 28) / full < 0.35


def test_decoding_one_token_by_hand():
    s = replace(SMALL, layers=1)
    # Weights: 32·(4+2+2+4)·8 + 3·32·48 = 7680; the new token sees 10 cached ones and itself.
    assert s.layer_weights() == 7680
    assert s.decode_flops((10,), 1) == 2 * 7680 + 4 * 32 * 11 + 2 * 3200
    assert s.decode_flops((10,), 3) == 3 * (2 * 7680 + 2 * 3200) + 4 * 32 * (11 + 12 + 13)
    assert s.decode_flops((10,), 0) == 0


def test_decoding_continues_prefill():
    """Prefilling n + 1 tokens is prefilling n and decoding one, but for the extra logits."""
    s, n = SMALL, 12
    both = s.prefill_flops(n, (0,) * 3) + s.decode_flops((n,) * 3, 1)
    assert both - s.head_flops == s.prefill_flops(n + 1, (0,) * 3)


def test_cache_bytes():
    assert SMALL.kv_bytes((3, 2, 1), 2) == 2 * 2 * 8 * 6 * 2
    # 28 layers · 2 · 4 heads · 128 · 2 bytes = 57 344 bytes a token.
    assert QWEN_7B.kv_bytes((1,) * 28) == 57344


def test_weight_bytes():
    biases = 28 * (2 * 3584 + (28 + 2 * 4) * 128) + 3584
    assert QWEN_7B.parameters + biases == 7_615_616_512  # Qwen2.5-7B's own count
    assert QWEN_7B.weight_bytes(2) == 2 * QWEN_7B.parameters
    assert QWEN_7B.weight_bytes(4) == 4 * QWEN_7B.parameters
    tables = 152064 * 3584
    assert replace(QWEN_7B, tied=True).weight_bytes(2) == 2 * (QWEN_7B.parameters - tables)
    assert QWEN_7B.weight_bytes(0.5) < 0.6e10


class Mixture(nn.Module):
    """Router, experts and a shared expert over the same input, for their weights."""

    def __init__(self, hidden: int, experts: Experts):
        super().__init__()
        self.router = nn.Linear(hidden, experts.count, bias=False)
        widths = [experts.width] * experts.count + [experts.shared]
        self.experts = nn.ModuleList(
            nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in sides)
            for w in widths
            for sides in [((hidden, w), (hidden, w), (w, hidden))]
        )


def test_experts_are_counted_whole_in_memory_and_by_what_a_token_passes():
    experts = Experts(count=6, active=2, width=16, shared=8, dense_layers=1)
    mixed = replace(SMALL, experts=experts)
    whole = sum(p.numel() for p in Mixture(32, experts).parameters())
    attention = SMALL.attention_weights
    assert mixed.layer_weights(2, active=False) == attention + whole
    assert mixed.layer_weights(2) == attention + 3 * 32 * (2 * 16 + 8) + 32 * 6
    assert mixed.layer_weights(0) == mixed.layer_weights(0, active=False) == SMALL.layer_weights()
    assert mixed.linear_weights == SMALL.layer_weights() + 2 * (attention + whole)
    assert (mixed.mlp_width(0), mixed.mlp_width(1)) == (48, 40)
    assert mixed.prefill_flops(0, (9, 9, 9)) == (
        mixed.layer_flops(9, 0) + 2 * mixed.layer_flops(9, 1) + mixed.head_flops
    )


def test_a_published_mixture_of_experts():
    """Qwen3-30B-A3B: 30.5 billion weights, 3.3 active; 96 KiB of keys and values a token."""
    shape = TextShape(48, 2048, 6144, 32, 4, 128, 151_936, experts=Experts(128, 8, 768))
    assert 30.4e9 < shape.parameters < 30.6e9
    assert 3.2e9 < 48 * shape.layer_weights() + shape.table_weights < 3.4e9
    assert shape.kv_bytes((1,) * 48) == 96 * 1024


VISION = VisionShape(2, 8, 12, 2, 14, 2, 2, 56, (1,), 16)


def test_vision_flops_by_hand():
    # A frame of 6 × 4 patches: windows of 4 × 4 and 2 × 4, one of two layers over all 24.
    frame = 24
    block = 8 * (4 * 8 + 3 * 12)
    linear = 2 * frame * (2 * block + 3 * 2 * 14 * 14 * 8)
    merger = 2 * (frame // 4) * (32 * 32 + 32 * 16)
    attention = 4 * 8 * (16**2 + 8**2 + 24**2)
    assert VISION.flops((3, 6, 4)) == 3 * (linear + merger + attention)
    everywhere = replace(VISION, window=0, full_attention=())
    attention = 4 * 8 * 2 * 24**2
    assert everywhere.flops((3, 6, 4)) == 3 * (linear + merger + attention)


def test_plain_mlps_and_more_planes():
    plain = replace(VISION, gated=False)
    assert VISION.parameters - plain.parameters == 2 * 8 * 12
    assert VISION.flops((1, 6, 4)) - plain.flops((1, 6, 4)) == 2 * 24 * 2 * 8 * 12
    deep = replace(VISION, planes=3)
    merger = 32 * 32 + 32 * 16
    assert deep.parameters - VISION.parameters == 2 * merger
    assert deep.flops((1, 6, 4)) - VISION.flops((1, 6, 4)) == 2 * 2 * 6 * merger


class Whisper(nn.Module):
    """The matrix products of an audio encoder over one window."""

    def __init__(self, s: AudioShape):
        super().__init__()
        self.s = s
        self.one = nn.Conv1d(s.mel_bins, s.hidden, 3, padding=1, bias=False)
        self.two = nn.Conv1d(s.hidden, s.hidden, 3, stride=2, padding=1, bias=False)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                nn.Linear(a, b, bias=False)
                for a, b in ((s.hidden, s.hidden),) * 4
                + ((s.hidden, s.intermediate), (s.intermediate, s.hidden))
            )
            for _ in range(s.layers)
        )
        self.out = nn.Linear(s.hidden, s.output, bias=False)

    def forward(self, mel):
        x = self.two(self.one(mel[None]))[0].T
        for q, k, v, o, up, down in self.layers:
            x = o((q(x) @ k(x).T) @ v(x))
            x = down(up(x))
        return self.out(x.unflatten(0, (-1, 2)).mean(1))


def test_audio_equals_the_counter():
    s = AudioShape(2, 16, 24, 2, 10, 40, 12)
    model = Whisper(s)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tokens = sum(len(model(torch.randn(10, n))) for n in (40, 40, 12))
    assert s.flops(tokens) == counter.get_total_flops()
    assert s.parameters == sum(p.numel() for p in model.parameters())


def test_audio_with_other_projections_and_rates():
    """13 positions a second, each a token, in windows of 8 s: as a family with Conv2d has it."""
    stem = Projections(stem=50, stem_per_position=70, head=90)
    s = AudioShape(1, 16, 24, 2, 10, 800, 12, Fraction(100, 13), 1, stem)
    layer = 16 * (4 * 16 + 2 * 24)
    assert s.parameters == layer + 50 + 90
    pairs = 104**2 + 26**2
    assert s.flops(130) == 2 * 130 * (layer + 70 + 90) + 4 * 16 * pairs


def test_peaks_by_hand():
    s = TextShape(2, 32, 48, 4, 2, 8, 100)
    # 10 rows enter the last layer: cache of both layers, angles, and the larger half.
    rows = 10 * 2 * 32 * 4 + 10 * ((2 * 48 + 32) * 4 + 2 * 32 * 4)
    assert s.peak_bytes((10, 10), 4) == 2 * 2 * 8 * 4 * 20 + 10 * 2 * 8 * 4 + rows
    assert s.peak_bytes((10, 4), 4) < s.peak_bytes((10, 10), 4)
    # On a GPU, more rows at once pass the MLP.
    more = s.peak_bytes((4096,) * 2, 4, gpu=True) - s.peak_bytes((4096,) * 2, 4)
    assert more == (MLP_ROWS_GPU - MLP_ROWS) * ((2 * 48 + 32) * 4 + 2 * 32 * 4)
    # Every chosen expert gets its own copy of a row.
    mixed = replace(s, experts=Experts(count=6, active=2, width=24))
    assert mixed.peak_bytes((10, 10), 4) - s.peak_bytes((10, 10), 4) == (10 * 2 * (3 * 32 + 24) * 4)
    pixels = 4 * 3 * 2 * 14**2
    assert VISION.peak_bytes((1, 6, 4), 2) == 24 * ((6 * 8 + 3 * 12) * 2 + pixels)
    assert VISION.peak_bytes((999, 100, 100), 2) == VISION.peak_bytes((1, 100, 100), 2)
    assert VISION.peak_bytes(None, 2) == 0


def test_a_report_says_what_is_special():
    audio = AudioShape(2, 16, 24, 2, 10, 40, 12)
    shapes = Shapes(replace(SMALL, experts=Experts(4, 2, 8)), VISION, audio)
    found = described(shapes)
    assert "tied" not in found["text"]
    assert found["text"]["experts"]["count"] == 4
    assert list(found["audio"]) == [
        "layers", "hidden", "intermediate", "heads", "mel_bins", "window", "output",
    ]  # fmt: skip
    assert (
        described(replace(audio, frames_per_position=Fraction(5, 2)))["frames_per_position"] == 2.5
    )
    whole = shapes.parameters
    assert whole == shapes.text.parameters + VISION.parameters + audio.parameters
    assert shapes.weight_bytes(2) == 2 * whole
    assert shapes.weight_bytes(2, 1) == 2 * whole - shapes.text.linear_weights
