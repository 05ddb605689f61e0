"""The GPU checks run on the CPU: they pass, and they fail if an error is injected."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from tests.pruning.refiners import refiner_folder

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


def test_a_replaced_choice_brings_what_it_carries(checkpoint: Path, clips: list[Features]) -> None:
    """A script's tokens go on with the script's states and text, not with those of this run."""
    model = Pair.load(checkpoint, "cpu").model
    folder = refiner_folder(model.adapter.info.text.hidden)
    method = omnidrop.get_method("echoingpixels", budget=0.4, refiner=folder)
    recorder = agreement.Recorder(method)
    agreement.greedy(model, clips[0], 1, recorder)
    call = recorder.calls[0]
    own = call.entry
    assert own.states is not None
    assert own.text is not None
    other = replace(own, keep=own.keep[1:], states=own.states[1:] + 1, text=own.text + 1)
    scripted = agreement.Recorder(method, [replace(call, entry=other)])
    given = scripted._scripted(own, -1, call.replayed, {})
    assert torch.equal(given.keep, other.keep)
    assert given.states is not None
    assert torch.equal(given.states, other.states)
    assert given.text is not None
    assert torch.equal(given.text, other.text)


def test_the_choice_of_a_refiner(checkpoint: Path, clips: list[Features]) -> None:
    width = Pair.load(checkpoint, "cpu").model.adapter.info.text.hidden
    method = omnidrop.get_method("echoingpixels", budget=0.4, refiner=refiner_folder(width))
    (found,) = checks.check_choices(checkpoint, clips[:1], "cpu", method)
    assert (found.layer, found.swapped, found.scores) == (-1, 0, 0)
