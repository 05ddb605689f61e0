"""The demo model's reading of evidence: measured, and right on clips whose events are known."""

from __future__ import annotations

from pathlib import Path

import pytest

import omnidrop
from omnidrop.evidence import FILE, read_reading

SAMPLES = Path(__file__).resolve().parents[2] / "samples"

#: Clip, question, and when its answer can be seen or heard (samples/avsynth/ready.py).
KNOWN = [
    ("flash", "Does a number flash in a corner?", (2.0, 2.8)),
    ("flash", "What colour is the digit?", (2.0, 2.8)),
    ("flash", "What instrument plays last?", (4.05, 7.95)),
    ("duet", "What instrument plays first?", (0.05, 3.4)),
    ("duet", "Which shape is shown last?", (3.5, 7.0)),
    ("silent", "Which shape is shown first?", None),
]


@pytest.fixture(scope="module")
def model():
    return omnidrop.load(str(SAMPLES / "demo-model"), device="cpu", offline=True)


def test_nine_of_ten_strongest_moments_meet_the_evidence() -> None:
    reading = read_reading(SAMPLES / "demo-model" / FILE)
    assert reading is not None
    for method in ("omnidrop-auto", "seats"):
        for budget in (0.3, 0.2):
            rate = reading.rate(method, budget)
            assert rate is not None
            assert rate.questions > 250
            assert rate.share >= 0.9
            assert rate.above_chance


@pytest.mark.parametrize("name", ["omnidrop-auto", "seats"])
@pytest.mark.parametrize("budget", [0.3, pytest.param(0.2, marks=pytest.mark.slow)])
def test_moments_are_where_the_events_are(model, name, budget) -> None:
    from avsynth.ready import ready_clips

    method = omnidrop.get_method(name, budget=budget)
    silent = next(item.clip for item in ready_clips() if item.name == "silent")
    assert silent.shapes is not None
    met = 0
    for file, question, span in KNOWN:
        start, end = span or (silent.shapes[0].start, silent.shapes[0].end)
        with model.open(SAMPLES / f"{file}.mp4") as clip:
            moments = clip.ask(question, method=method).trace.moments
        assert 1 <= len(moments) <= 3
        assert sum(moment.share for moment in moments) <= 1 + 1e-6
        met += moments[0].start < end and moments[0].end > start
    assert met >= len(KNOWN) - 1


@pytest.mark.slow
def test_the_flash_is_found_in_a_minute_of_film(model) -> None:
    """The digit is shown from 40 to 41 s; the clip is eight times as long as those trained on."""
    with model.open(SAMPLES / "long.mp4") as clip:
        answer = clip.ask("Does a number flash in a corner?", method=omnidrop.Method(), anyway=True)
    print(answer.text, answer.trace.moments)
    assert any(m.start < 41 and m.end > 40 for m in answer.trace.moments)
