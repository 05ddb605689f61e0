"""The GPU checks run on the CPU: they pass, and they fail if an error is injected."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from gpu import checks
from gpu.pairs import Pair

import omnidrop
from benchmarks.gpu_parts import agreement
from omnidrop.engine.encode import Features
from omnidrop.pruning.method import LayerView

pytestmark = pytest.mark.slow


def test_tokens(checkpoint: Path, clips: list[Features]) -> None:
    checks.check_tokens(checkpoint, clips, "cpu")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits(checkpoint: Path, clips: list[Features], dtype: str) -> None:
    checks.check_logits(checkpoint, clips[:2], "cpu", dtype)


@pytest.mark.parametrize("name", checks.METHODS)
def test_choices(checkpoint: Path, clips: list[Features], name: str) -> None:
    found = checks.check_choices(checkpoint, clips[:1], "cpu", checks.METHODS[name])
    assert found[0].layer == -1
    assert all(one.swapped == 0 and one.scores == 0 for one in found)
    assert len(found) > 1 or name == "uniform"


def test_decoding(checkpoint: Path, clips: list[Features]) -> None:
    checks.check_decoding(checkpoint, clips[:1], "cpu", checks.METHODS["attention"])


def other_weights(pair: Pair, by: float) -> None:
    """Change our model's query weights of one layer, as an error in a kernel would."""
    layer = pair.model.adapter._layers[2]  # type: ignore[attr-defined]
    with torch.no_grad():
        layer.self_attn.q_proj.weight.mul_(1 + by)


def test_an_error_changes_the_tokens(checkpoint: Path, clips: list[Features]) -> None:
    pair = Pair.load(checkpoint, "cpu")
    other_weights(pair, 0.5)
    equal, made = agreement.tokens_equal(pair.model, pair.thinker, clips[0], 48)
    assert equal < made == 48


def test_an_error_changes_the_logits(checkpoint: Path, clips: list[Features]) -> None:
    whole = Pair.load(checkpoint, "cpu")
    reference = agreement.Reference.of(whole.model, whole.thinker, clips[0], 8)
    pair = Pair.load(checkpoint, "cpu", "bfloat16")
    other_weights(pair, 0.2)
    apart = agreement.distances(pair.model, pair.thinker, [(clips[0], reference)])
    assert apart.ratio > agreement.ALLOWED


def test_different_scores_are_not_a_tie(checkpoint: Path, clips: list[Features]) -> None:
    first, second = (Pair.load(checkpoint, "cpu") for _ in range(2))
    other_weights(second, 0.2)
    method = checks.METHODS["attention"]
    found = agreement.compare_choices(first.model, second.model, clips[0], method)
    wrong = [one for one in found if not one.tie(checks.ROUNDING)]
    assert wrong
    assert all(one.layer >= 2 for one in wrong)
    assert any(one.swapped for one in wrong)


@dataclass(frozen=True)
class Broken(omnidrop.FastV):
    """Keeps the lowest scores when the engine calls it, as a device with a broken sort would."""

    name: ClassVar[str] = "broken"

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        scores = view.attention("last")
        replaying = view._replaying  # type: ignore[attr-defined]
        order = torch.argsort(scores, descending=replaying, stable=True)
        return order[:count].sort().values


def test_another_rule_is_not_a_tie(checkpoint: Path, clips: list[Features]) -> None:
    model = Pair.load(checkpoint, "cpu").model
    found = agreement.compare_choices(model, model, clips[0], Broken(budget=0.4))
    assert [one.tie(1.0) for one in found] == [True, False]
