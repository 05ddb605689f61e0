"""The demo model's audio-to-visual predictor fits its weights, is small and is found by default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import omnidrop
from omnidrop.pruning.methods.contextguard import ContextGuard
from omnidrop.pruning.parts import a2v

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
FOLDER = SAMPLES / "demo-model" / "a2v"


@pytest.fixture(scope="module")
def model():
    return omnidrop.load(str(SAMPLES / "demo-model"), device="cpu", offline=True)


def test_the_predictor_was_trained_with_the_shipped_weights(model) -> None:
    trained = a2v.KIND.load(FOLDER)
    assert trained.fingerprint == model.adapter.fingerprint, (
        "the demo model's towers changed: run samples/train_demo_a2v.py"
    )
    assert trained.module.shape.width == model.info.text.hidden
    assert sum(f.stat().st_size for f in FOLDER.iterdir()) < 300_000
    losses = json.loads((FOLDER / a2v.KIND.settings).read_text())["training"]
    assert losses["held_out_clips"] >= 20
    assert losses["held_out_loss"] < 1.1 * losses["held_out_loss_without_listening"]


@pytest.mark.parametrize("clip", ["duet.mp4", "silent.mp4"])
def test_contextguard_finds_the_predictor(model, clip) -> None:
    with model.open(SAMPLES / clip) as session:
        answer = session.ask("What is shown?", method=ContextGuard(budget=0.3))
    assert answer.trace.realised_budget == pytest.approx(0.3, abs=0.01)


def test_seats_ends_without_audio_and_video(model) -> None:
    with model.open(SAMPLES / "duet.mp4") as session:
        method = omnidrop.get_method("seats", budget=0.3)
        trace = session.ask("What instrument plays first?", method=method).trace
    assert trace.kept_audio[-1] == trace.kept_video[-1] == 0
    assert trace.realised_budget == pytest.approx(0.3, abs=0.01)
