"""What an estimate says, against the shapes it is made from."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from omnidrop.models import qwen2_5_omni, qwen2_5_towers
from omnidrop.models.loading import LoadOptions
from omnidrop.models.sketch import RoughEncoder, sketch
from omnidrop.report import cost, estimate
from omnidrop.report.estimate import Sizes, Tokens, peak_bytes, run_estimate, tower_costs


@pytest.fixture
def sizes() -> Sizes:
    known = sketch(LoadOptions(model="7b", device="cpu"))
    return Sizes(known.text, known.vision, known.audio, known.weights, known.bytes_per_value)


def test_published_models_are_known_without_their_files() -> None:
    seven, three = (sketch(LoadOptions(model=m, device="cpu")) for m in ("7b", "3b"))
    # The hub counts 8.93 and 4.70 billion parameters in the thinkers.
    assert 8.92e9 < seven.parameters < 8.94e9
    assert 4.68e9 < three.parameters < 4.72e9
    assert seven.weights == 2 * seven.parameters
    four = sketch(LoadOptions(model="7b", device="cpu", quantize="4bit"))
    assert 0.4 * seven.weights < four.weights < 0.5 * seven.weights


def test_rough_encoder_covers_the_text() -> None:
    text = "What instrument plays first?"
    ids, spans = RoughEncoder().encode(text)
    assert len(ids) == len(spans)
    assert "".join(text[a:b] for a, b in spans) == text


def test_keeping_less_costs_less(sizes: Sizes) -> None:
    tokens = Tokens(text=40, audio=1000, video=3000, grid=(20, 24, 24), counted=True)
    full = run_estimate("none", "none", 1.0, (4000,) * 28, sizes, tokens, 1e14)
    half = run_estimate("x 0.5", "x", 0.5, (3000,) * 14 + (1000,) * 14, sizes, tokens, 1e14)
    assert (full.realised, full.speedup, half.realised) == (1.0, 1.0, 0.5)
    assert half.speedup == full.flops_prefill / half.flops_prefill > 2
    assert half.kv_cache < full.kv_cache == cost.kv_bytes(sizes.text, (4040,) * 28, 2)
    assert sizes.weights < half.peak < full.peak
    assert full.seconds == (full.flops_prefill + sum(tower_costs(sizes, tokens))) / 1e14


def test_a_large_picture_is_what_counts(sizes: Sizes) -> None:
    tokens = Tokens(text=40, audio=0, video=10, grid=(2, 200, 200), counted=True)
    small = Tokens(text=40, audio=0, video=10, grid=(2, 4, 4), counted=True)
    lengths = (50,) * 28
    assert peak_bytes(sizes, tokens, lengths) > peak_bytes(sizes, small, lengths)


def test_it_knows_how_many_go_together() -> None:
    assert (estimate.ROWS, estimate.TOWER_BATCH) == (qwen2_5_omni.ROWS, qwen2_5_towers.VISION_BATCH)
    assert estimate.TOWER_BATCH_GPU == qwen2_5_towers.VISION_BATCH_GPU


@dataclass(frozen=True)
class Vision:
    layers: int = 2
    hidden: int = 8
    intermediate: int = 12
    patch: int = 14
    temporal_patch: int = 2
    merge: int = 2
    window: int = 56
    full_attention: tuple[int, ...] = (1,)
    output: int = 16


def test_vision_flops_by_hand() -> None:
    # A frame of 6 × 4 patches: windows of 4 × 4 and 2 × 4, one of two layers over all 24.
    shape, frame = Vision(), 24
    block = 8 * (4 * 8 + 3 * 12)
    linear = 2 * frame * (2 * block + 3 * 2 * 14 * 14 * 8)
    merger = 2 * (frame // 4) * (32 * 32 + 32 * 16)
    attention = 4 * 8 * (16**2 + 8**2 + 24**2)
    assert cost.vision_flops(shape, (3, 6, 4)) == 3 * (linear + merger + attention)
