"""Checks of the engine on any device; `test_gpu` runs them on a GPU, `test_checks` on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu.pairs import Pair

import omnidrop
from benchmarks.gpu_parts import agreement
from omnidrop.engine.encode import Features
from omnidrop.pruning.method import Method

#: Allowed difference of float32 scores between two devices, relative to the largest score.
ROUNDING = 1e-4

#: Methods with a fixed plan, one of every kind: attention, diversity, merging, spacing.
METHODS: dict[str, Method] = {
    "attention": omnidrop.get_method("uniform+omnidrop", budget=0.3, diversity=0),
    "diversity": omnidrop.get_method("uniform+omnidrop", budget=0.2),
    "merging": omnidrop.OmniDrop(budget=0.3),
    "fastv": omnidrop.FastV(budget=0.3),
    "uniform": omnidrop.Uniform(budget=0.3),
}


def check_tokens(checkpoint: Path, clips: list[Features], device: str) -> None:
    """In float32, 48 tokens equal those of transformers."""
    pair = Pair.load(checkpoint, device)
    for clip in clips:
        assert agreement.tokens_equal(pair.model, pair.thinker, clip, 48) == (48, 48)


def check_logits(checkpoint: Path, clips: list[Features], device: str, dtype: str) -> None:
    """In 16 bits, our distance from a float32 run is at most 1.1 times that of transformers."""
    whole = Pair.load(checkpoint, device)
    cases = [(clip, agreement.Reference.of(whole.model, whole.thinker, clip, 16)) for clip in clips]
    pair = Pair.load(checkpoint, device, dtype)
    apart = agreement.distances(pair.model, pair.thinker, cases)
    assert 0 < apart.theirs < 0.5
    assert apart.ratio <= agreement.ALLOWED, apart


def check_choices(
    checkpoint: Path, clips: list[Features], device: str, method: Method
) -> list[agreement.ChoiceDifference]:
    """The tokens kept in each layer are those that the CPU keeps, except for ties."""
    first = Pair.load(checkpoint, "cpu").model
    second = Pair.load(checkpoint, device).model
    found = []
    for clip in clips:
        found += agreement.compare_choices(first, second, clip, method)
    assert found
    assert all(one.tie(ROUNDING) for one in found), [o for o in found if not o.tie(ROUNDING)]
    return found


def check_decoding(checkpoint: Path, clips: list[Features], device: str, method: Method) -> None:
    """A pruned answer in float32 has the CPU's tokens, unless there was a tie."""
    first = Pair.load(checkpoint, "cpu").model
    second = Pair.load(checkpoint, device).model
    for clip in clips:
        if any(one.swapped for one in agreement.compare_choices(first, second, clip, method)):
            pytest.skip("a tie was resolved differently")
        with agreement.full_float32():
            said = [agreement.greedy(model, clip, 32, method) for model in (first, second)]
        assert said[0] == said[1]
