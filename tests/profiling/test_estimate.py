"""What an estimate says, against the shapes it is made from."""

from __future__ import annotations

import pytest

from omnidrop.models.loading import LoadOptions
from omnidrop.models.unloaded import RoughEncoder, describe
from omnidrop.profiling.estimate import Sizes, Tokens, encoder_flops, peak_bytes, run_estimate
from omnidrop.pruning.method import Method
from omnidrop.pruning.methods.echoingpixels import EchoingPixels
from omnidrop.pruning.methods.random import Random


@pytest.fixture
def sizes() -> Sizes:
    known = describe(LoadOptions(model="7b", device="cpu"))
    return Sizes(known.shapes, known.weights, known.bytes_per_value)


def test_published_models_are_known_without_their_files() -> None:
    seven, three = (describe(LoadOptions(model=m, device="cpu")) for m in ("7b", "3b"))
    # The hub counts 8.93 and 4.70 billion parameters in the thinkers.
    assert 8.92e9 < seven.parameters < 8.94e9
    assert 4.68e9 < three.parameters < 4.72e9
    assert seven.weights == 2 * seven.parameters
    four = describe(LoadOptions(model="7b", device="cpu", quantize="4bit"))
    assert 0.4 * seven.weights < four.weights < 0.5 * seven.weights


def test_rough_encoder_covers_the_text() -> None:
    text = "What instrument plays first?"
    ids, spans = RoughEncoder().encode(text)
    assert len(ids) == len(spans)
    assert "".join(text[a:b] for a, b in spans) == text


def test_keeping_less_costs_less(sizes: Sizes) -> None:
    tokens = Tokens(text=40, audio=1000, video=3000, grid=(20, 24, 24), counted=True)
    full = run_estimate("none", Method(), (4000,) * 28, sizes, tokens, 1e14)
    halves = (3000,) * 14 + (1000,) * 14
    half = run_estimate("random 0.5", Random(budget=0.5), halves, sizes, tokens, 1e14)
    assert (full.realised, full.speedup, half.realised) == (1.0, 1.0, 0.5)
    assert half.speedup == full.flops_prefill / half.flops_prefill > 2
    assert half.kv_cache < full.kv_cache == sizes.shapes.text.kv_bytes((4040,) * 28, sizes.width)
    assert sizes.weights < half.peak < full.peak
    assert full.seconds == (full.flops_prefill + sum(encoder_flops(sizes, tokens))) / 1e14


def test_layers_that_a_method_runs_itself_cost(sizes: Sizes) -> None:
    tokens = Tokens(text=40, audio=1000, video=3000, grid=(20, 24, 24), counted=True)
    counts, text = (800,) * 28, sizes.shapes.text
    plain = run_estimate("random", Random(budget=0.2), counts, sizes, tokens, 1e14)
    refined = run_estimate("echo", EchoingPixels(budget=0.2), counts, sizes, tokens, 1e14)
    own = text.two_way_flops(4040, 4)
    assert refined.flops_prefill - plain.flops_prefill == pytest.approx(own)
    assert refined.seconds - plain.seconds == pytest.approx(own / 1e14)
    assert refined.speedup < plain.speedup
    weights, reading = text.two_way_weight_bytes(4), text.two_way_peak_bytes(4040, 4)
    assert weights < refined.peak - plain.peak < weights + reading


def test_a_large_picture_is_what_counts(sizes: Sizes) -> None:
    tokens = Tokens(text=40, audio=0, video=10, grid=(2, 200, 200), counted=True)
    small = Tokens(text=40, audio=0, video=10, grid=(2, 4, 4), counted=True)
    lengths = (50,) * 28
    assert peak_bytes(sizes, tokens, lengths) > peak_bytes(sizes, small, lengths)
