"""Which attention kernel the engine would use on a GPU: cuDNN's only where a plan pays."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import omnidrop
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.models import kernels
from omnidrop.models.kernels import Choice
from omnidrop.pruning.method import Method
from omnidrop.report.trace import Answer

OPTIONS = GenerateOptions(max_new_tokens=4, logprobs=True)
PRUNED = omnidrop.OmniDrop(budget=0.3)

#: The made-up family calls PyTorch's attention directly.
pytestmark = pytest.mark.parametrize("folder", ["qwen2_5_omni"], indirect=True)


@dataclass(frozen=True)
class Call:
    """Sizes of a call, and the choice of its kernel on a GPU."""

    rows: int
    keys: int
    choice: Choice


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Record the choices as on a GPU with every prompt counted as long; compute plainly."""
    made: list[Call] = []
    choose = kernels.choose

    def recorded(device: torch.device, rows: int, keys: int, *, shared: bool) -> Choice:
        choice = choose(torch.device("cuda"), rows, keys, shared=shared)
        made.append(Call(rows, keys, choice))
        return choice

    monkeypatch.setattr(kernels, "choose", recorded)
    monkeypatch.setattr(kernels, "PLANNED_FROM", 64)
    monkeypatch.setattr("omnidrop.engine.prefill.SPLIT_FROM", 1)
    return made


def ask(model: Model, clip: Features, method: Method, *questions: str) -> list[Answer]:
    with model.features(clip) as session:
        return [session.ask(q, method=method, options=OPTIONS) for q in questions]


def planned(calls: list[Call]) -> list[Call]:
    return [call for call in calls if call.choice is Choice.TORCH]


def test_a_pruned_answer_never_uses_a_plan(model, features, calls) -> None:
    ask(model, features, PRUNED, "What plays first?", "Which colour is last?")
    steps = [call for call in calls if call.rows == 1]
    assert len({call.keys for call in steps}) > model.info.text.layers
    assert max(call.rows for call in calls) >= 64
    assert not planned(calls)


def test_an_unpruned_answer_uses_one_plan_and_only_in_the_first_prefill(
    model, features, calls
) -> None:
    with model.features(features) as session:
        session.encode()
        assert not planned(calls)
        calls.clear()
        session.ask("What plays first?", method=Method(), options=OPTIONS)
        layers = model.info.text.layers
        assert len(planned(calls)) == layers - 1  # the last layer computes one row only
        assert len({(call.rows, call.keys) for call in planned(calls)}) == 1
        calls.clear()
        session.ask("Which colour is last?", method=Method(), options=OPTIONS)
        assert len(calls) > layers
        assert not planned(calls)


@pytest.mark.parametrize("method", [Method(), PRUNED], ids=lambda m: m.name)
def test_the_choice_changes_no_token(model, features, calls, monkeypatch, method) -> None:
    there = ask(model, features, method, "What plays first?", "Which colour is last?")
    assert calls
    monkeypatch.undo()
    monkeypatch.setattr("omnidrop.engine.prefill.SPLIT_FROM", 1)
    here = ask(model, features, method, "What plays first?", "Which colour is last?")
    for got, wanted in zip(there, here, strict=True):
        assert got.token_ids == wanted.token_ids
        assert got.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
