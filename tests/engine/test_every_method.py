"""Every registered method over every family, through the whole engine."""

from __future__ import annotations

import pytest

from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.pruning.method import Method
from omnidrop.pruning.registry import get_method, methods
from tests.some import every
from tests.tiny import make_features

QUESTION = "What instrument plays first?"
FIRST = "Which colour is shown last?"
SHORT = GenerateOptions(max_new_tokens=6, survivors=True, logprobs=True)

#: These need a network trained for the model (`tests/training/`).
NAMES = sorted(set(methods()) - {"contextguard", "echoingpixels", "omnisift"})
NAMES += ["omniroute+omnidrop", "uniform@omnidelta", "omnidrop@omnidelta"]


def made(name: str, budget: float) -> Method:
    return Method() if name == "none" else get_method(name, budget=budget)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_meets_its_budget_and_its_plan(
    model: Model, features: Features, name: str
) -> None:
    method = made(name, 0.5)
    with model.features(features) as clip:
        one = clip.ask(QUESTION, method=method, options=SHORT)
    trace = one.trace
    assert abs(trace.realised_budget - method.budget) <= 0.01
    assert len(trace.survivors) == model.info.text.layers
    for upper, lower in zip(trace.survivors, trace.survivors[1:], strict=False):
        assert set(lower) <= set(upper)
        assert list(lower) == sorted(set(lower))
    with model.features(features) as clip:
        clip.ask(FIRST, method=method, options=SHORT)
        second = clip.ask(QUESTION, method=method, options=SHORT)
    assert second.token_ids == one.token_ids
    assert second.trace.survivors == trace.survivors


@pytest.mark.parametrize("name", every(2, NAMES))
def test_a_method_that_keeps_all_changes_nothing(
    model: Model, features: Features, name: str
) -> None:
    with model.features(features) as clip:
        full = clip.ask(QUESTION, method=Method(), options=SHORT)
        kept = clip.ask(QUESTION, method=made(name, 1.0), options=SHORT)
    assert kept.token_ids == full.token_ids
    assert kept.logprobs == full.logprobs


@pytest.mark.parametrize("name", every(2, NAMES))
@pytest.mark.parametrize(
    ("grid", "mel_frames"),
    [pytest.param(None, 410, marks=pytest.mark.slow), ((4, 8, 6), 0)],
    ids=["audio only", "silent"],
)
def test_a_method_handles_a_clip_of_one_modality(
    model: Model, name: str, grid: tuple[int, int, int] | None, mel_frames: int
) -> None:
    with model.features(make_features(grid, mel_frames, model=model)) as clip:
        trace = clip.ask(QUESTION, method=made(name, 0.5), options=SHORT).trace
    assert abs(trace.realised_budget - trace.asked_budget) <= 0.02
