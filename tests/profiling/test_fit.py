"""Limits instead of a budget, on a tiny model."""

from __future__ import annotations

import pytest
import torch

import omnidrop
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.errors import BudgetError
from omnidrop.profiling import fit as fitting
from omnidrop.profiling.prefill_speed import PrefillSpeed, prefill_speed
from omnidrop.pruning.method import Method
from omnidrop.testing import media
from tests.tiny import make_features

QUESTION = "What instrument plays first?"
SHORT = GenerateOptions(max_new_tokens=2)


@pytest.fixture
def slow(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 100 MFLOP/s, so that what is expected does not depend on this one."""
    monkeypatch.setattr(fitting, "prefill_speed", lambda *_: PrefillSpeed(1e8, 0.1))


@pytest.mark.parametrize(
    "method", [omnidrop.OmniDrop(), omnidrop.OmniDropAuto(keep_mass=0.85), Method()]
)
def test_a_generous_limit_keeps_everything(model: Model, features: Features, method) -> None:
    with model.features(features) as clip:
        trace = clip.ask(QUESTION, method=method, options=SHORT,
                         limits=omnidrop.Limits(latency=1000, memory=1e12)).trace  # fmt: skip
    assert trace.asked_budget == 1.0
    assert trace.notices[-1].startswith("--fit-latency 1000 s --fit-memory 1000 GB: budget 1, exp")
    assert "fit" in {stage.name for stage in trace.stages}


def test_an_absurd_limit_is_refused(model: Model, features: Features) -> None:
    for limits, said in (
        (omnidrop.Limits(latency=1e-5), "is expected to take"),
        (omnidrop.Limits(memory=1e6), "were in use before the language model began"),
    ):
        with model.features(features) as clip, pytest.raises(BudgetError, match=said):
            clip.ask(QUESTION, options=SHORT, limits=limits)


def test_the_budget_meets_what_is_expected(model: Model, slow, features: Features) -> None:
    with model.features(features) as clip:
        clip.encode()
        kept = []
        for share in (0.9, 0.5, 0.3):
            whole = clip.ask(QUESTION, method=Method(), options=SHORT).trace
            latency = 0.1 + whole.flops_prefill * share / 1e8
            trace = clip.ask(QUESTION, options=SHORT, limits=omnidrop.Limits(latency=latency)).trace
            assert trace.flops_prefill / 1e8 + 0.1 <= latency
            kept.append(trace.realised_budget)
    assert 1.0 > kept[0] > kept[1] > kept[2] > 0.0


def test_memory_grows_with_the_budget(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "in_use", lambda adapter: (10**9, 10**9))
    found = []
    with model.features(make_features((40, 16, 16), 4100, model=model)) as clip:
        encoded = clip.encode()
        prompt = fitting.build_prompt(
            model.adapter.text, model.adapter.template, QUESTION, encoded.media
        )
        for memory in (1.002e9, 1.004e9, 2e9):
            limits = omnidrop.Limits(memory=memory)
            method, _ = limits.choose(model.adapter, prompt, omnidrop.OmniDrop(), lambda: 0.0)
            found.append(method.budget)
    assert found[0] < found[1] < found[2] == 1.0


def test_the_pace_is_measured_once(model: Model) -> None:
    one = prefill_speed(model.adapter, omnidrop.OmniDrop(budget=0.5))
    assert one.rate > 0
    assert one.overhead >= 0
    assert prefill_speed(model.adapter, omnidrop.OmniDrop(budget=0.2)) is one
    assert prefill_speed(model.adapter, omnidrop.OmniDrop(diversity=0.0)) is not one


def test_pixels_and_rate_are_lowered_when_told(model: Model, slow, tmp_path, monkeypatch) -> None:
    path = media.mp4(tmp_path / "film.mp4", seconds=2.0)
    spent = []

    def predicted(adapter, clip):
        media, _, encoder = measured(adapter, clip)
        spent.append(clip.options)
        return media, 0.01 * len(spent), encoder

    measured = fitting.predict_encoding
    monkeypatch.setattr(fitting, "predict_encoding", predicted)
    monkeypatch.setattr(fitting, "SHRINK", 0.25)

    def lowered(latency: float, **told: bool):
        spent.clear()
        return fitting.fit_sampling(
            model.adapter, path, QUESTION, omnidrop.OmniDrop(),
            omnidrop.Limits(latency=latency), **told,
        )  # fmt: skip

    asked = omnidrop.ClipOptions()
    assert lowered(1000.0, pixels=True) == (asked, None)
    options, said = lowered(0.0001, fps=True)
    assert options.fps == fitting.LEAST_FPS
    assert "0.25 frames a second" in said
    assert options.max_pixels is None
    options, said = lowered(0.0001, pixels=True)
    assert options.fps == asked.fps
    assert f"frames of at most {options.max_pixels:,} pixels" in said
    assert torch.get_default_dtype() == torch.float32
