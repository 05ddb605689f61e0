"""How sure an answer is: probabilities, given choices, empty answers, and what was used."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import omnidrop
from omnidrop.clip.options import ClipOptions
from omnidrop.engine.asked_about import PICTURE, SOUND, asks_for
from omnidrop.engine.decode import Generated, GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.engine.sureness import MOST_TOKENS, OWN, judge
from omnidrop.evaluation.benchmarks.avsynth import avsynth_questions
from omnidrop.evaluation.question_files import read_items
from omnidrop.models.calibration import Calibration, Curve
from omnidrop.pruning.method import Method
from omnidrop.report.trace import EMPTY, Choice, Used
from omnidrop.testing import media

QUESTION = "What instrument plays first?"
SHORT = GenerateOptions(max_new_tokens=8)
CURVES = Calibration("calibrated on a test", Curve(0.5, -1.0), Curve(2.0, 0.0), 0.01)


def generated(text: str = "piano", logprob: float | None = -0.5, tokens: int = 2) -> Generated:
    return Generated(tuple(range(tokens)), text, "stop token", (), "", logprob)


def choices(*logprobs: float) -> tuple[Choice, ...]:
    shares = torch.tensor(logprobs, dtype=torch.float64).softmax(-1).tolist()
    return tuple(Choice(f"c{i}", shares[i], p) for i, p in enumerate(logprobs))


# Probability


def test_the_probability_is_that_of_every_token_and_the_end(demo: Model, samples) -> None:
    """Equal to scoring the same answer as a choice, which feeds it in one step."""
    demo_own = demo.adapter.calibration
    demo.adapter.calibration = None
    try:
        with demo.open(samples / "duet.mp4") as clip:
            answer = clip.ask(QUESTION, method=Method())
            scored = clip.ask(QUESTION, method=Method(), choices=[answer.text, "flute"])
    finally:
        demo.adapter.calibration = demo_own
    assert answer.stop == "stop token"
    assert answer.probability == pytest.approx(math.exp(scored.choices[0].logprob), rel=1e-4)
    assert answer.probability_source == OWN
    assert answer.logprobs == ()  # nobody asked for those of each token
    assert scored.probability == scored.choices[0].probability
    assert answer.choice_mass is None
    both = sum(math.exp(choice.logprob) for choice in scored.choices)
    assert scored.choice_mass == pytest.approx(both)


def test_logprobs_of_tokens_and_of_the_end_multiply(model: Model, features: Features) -> None:
    options = GenerateOptions(max_new_tokens=MOST_TOKENS, logprobs=True)
    with model.features(features) as clip:
        answer = clip.ask(QUESTION, options=options)
    if answer.stop == "stop token":
        assert 0 < answer.probability <= math.exp(sum(answer.logprobs))
    else:
        assert answer.probability is None


def test_an_answer_that_was_cut_off_or_is_long_has_none() -> None:
    assert judge(generated(logprob=None), (), None).probability is None
    assert judge(generated(tokens=MOST_TOKENS + 1), (), CURVES).probability is None
    assert judge(generated(tokens=MOST_TOKENS), (), None).probability == math.exp(-0.5)


def test_a_calibration_turns_the_models_own_into_how_often_it_is_right() -> None:
    own = math.exp(-0.5)
    sure = judge(generated(), (), CURVES)
    assert sure.probability == pytest.approx(
        1 / (1 + math.exp(-(0.5 * math.log(own / (1 - own)) - 1.0)))
    )
    assert sure.source == "calibrated on a test"
    best = choices(-1.0, -2.0)
    share = best[0].probability
    picked = judge(generated(), best, CURVES)
    assert picked.probability == pytest.approx(share**2 / (share**2 + (1 - share) ** 2))


def test_the_demo_model_comes_calibrated(demo: Model, samples) -> None:
    with demo.open(samples / "duet.mp4") as clip:
        answer = clip.ask(QUESTION)
    assert answer.probability_source == "calibrated on AVSynth"
    assert answer.text == "piano"
    assert 0.5 < answer.probability < 1


def test_a_drawn_answer_has_the_models_own_probability(demo: Model, samples) -> None:
    drawn = GenerateOptions(temperature=0.01, seed=1)
    with demo.open(samples / "duet.mp4") as clip:
        answer = clip.ask(QUESTION, options=drawn)
        greedy = clip.ask(QUESTION)
        picked = clip.ask(QUESTION, choices=["piano", "flute"], options=drawn)
    assert answer.text == greedy.text
    assert answer.probability_source == OWN
    assert answer.probability > greedy.probability  # the demo model is surer than it is right
    assert picked.probability_source == "calibrated on AVSynth"


# Choices, and nothing


def test_choices_that_do_not_fit_are_told(demo: Model, samples) -> None:
    with demo.open(samples / "duet.mp4") as clip:
        foreign = clip.ask("Who is it?", choices=["Obama", "Merkel", "Macron"], anyway=True)
        fitting = clip.ask(QUESTION, choices=["piano", "flute"])
    said = "None of the choices fits: together they have less than 0.0001 % of the probability."
    assert said in foreign.trace.notices
    assert foreign.choice_mass < 1e-6
    assert fitting.choice_mass > 0.5
    assert not any("None of the choices" in notice for notice in fitting.trace.notices)


def test_how_unlikely_choices_are_depends_on_the_model() -> None:
    rare = choices(math.log(2e-5), math.log(1e-5))
    assert judge(generated(), rare, None).notices == ()
    (notice,) = judge(generated(), rare, CURVES).notices
    assert notice == "None of the choices fits: together they have 0.003 % of the probability."


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_answer_without_a_word_is_told(text: str) -> None:
    assert judge(generated(text), (), None).notices == (EMPTY,)
    assert judge(generated("piano"), (), None).notices == ()


def test_an_empty_answer_reaches_the_trace(
    model: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = range(model.info.text.vocab)
    monkeypatch.setattr(model.adapter, "stop_ids", frozenset(vocabulary))
    with model.features(features) as clip:
        answer = clip.ask(QUESTION)
    assert (answer.text, answer.token_ids) == ("", ())
    assert EMPTY in answer.trace.notices
    assert 0 < answer.probability <= 1


# Where nothing was measured


def test_no_probability_where_nothing_like_it_was_measured(demo: Model, samples) -> None:
    """Nobody counted right answers to such questions, so a calibrated figure would be made up."""
    with demo.open(samples / "silent.mp4") as clip:
        silent = clip.ask(QUESTION)
        seen = clip.ask("What shape appears first?")
        chosen = clip.ask(QUESTION, choices=["piano", "flute"])
    with demo.open(samples / "duet.mp4") as clip:
        outside = clip.ask("Who is the president?", anyway=True)
    assert silent.probability is None
    assert chosen.probability is None
    assert silent.probability_source == ""
    assert silent.doubt == "the question asks about sound, and there is none"
    assert chosen.choice_mass is not None
    assert outside.probability is None
    assert outside.doubt == "the model does not know what is asked"
    assert seen.doubt == ""
    assert seen.probability is not None


def test_the_curves_hold_for_the_methods_they_were_fitted_with(demo: Model, samples) -> None:
    """OmniDrop at 10 % answers half of AVSynth rightly: a curve of better methods overrates it."""
    with demo.open(samples / "duet.mp4") as clip:
        fitted = clip.ask(QUESTION, method=omnidrop.OmniDropAuto(budget=0.1))
        other = clip.ask(QUESTION, method=omnidrop.OmniDrop(budget=0.1))
        less = clip.ask(QUESTION, method=omnidrop.OmniDropAuto(budget=0.05))
    assert fitted.probability_source == "calibrated on AVSynth"
    assert other.probability_source == less.probability_source == OWN


def test_a_calibration_without_methods_is_for_all() -> None:
    assert CURVES.covers("anything", 0.01)
    some = replace(CURVES, methods={"none": 1.0, "seats": 0.2})
    assert [some.covers("seats", b) for b in (0.1, 0.2, 0.3)] == [False, True, True]
    assert some.covers("none", 1.0)
    assert not some.covers("uniform+seats", 0.3)


# What the question asks for


@pytest.mark.parametrize("family", ["picture", "sound"])
def test_avsynths_questions_are_understood(family: str) -> None:
    """Nothing about the picture is taken for sound, nor the reverse; most are recognised."""
    items = [
        item
        for item in read_items(avsynth_questions(), avsynth_questions().parent)
        if item.extra["family"] == family
    ]
    assert len(items) > 200
    own, other = (PICTURE, SOUND) if family == "picture" else (SOUND, PICTURE)
    assert not [item.question for item in items if asks_for(item.question, other)]
    assert sum(asks_for(item.question, own) for item in items) > 0.7 * len(items)


@pytest.mark.parametrize(
    ("question", "sound", "picture"),
    [
        ("What do you HEAR?", True, False),
        ("Which colour is the car?", False, True),
        ("Is the man on the left saying something?", True, False),
        ("What happens?", False, False),
        ("Who plays football?", False, False),
        ("What does the sign say?", False, False),
        ("Describe the hearth.", False, False),
        ("What can be seen and heard?", True, True),
    ],
)
def test_words_of_seeing_and_hearing(question: str, sound: bool, picture: bool) -> None:
    assert (asks_for(question, SOUND), asks_for(question, PICTURE)) == (sound, picture)


@pytest.mark.parametrize(
    ("file", "options", "question", "said"),
    [
        ("silent", {}, "What do you hear?", "about sound, and there is none."),
        ("both", {"audio": False}, "What do you hear?", "about sound, and it is left out"),
        ("quiet", {}, "What do you hear?", "about sound, and the clip is silent all through."),
        ("sound", {}, "Which colour is it?", "about the picture, and there is none."),
        ("both", {"video": False}, "Which colour is it?", "about the picture, and it is left out"),
        ("both", {}, "What do you see and hear?", None),
        ("silent", {}, "Which colour is it?", None),
        ("sound", {}, "What do you hear?", None),
    ],
)
def test_a_question_about_what_is_not_there(
    demo: Model, tmp_path, file: str, options: dict, question: str, said: str | None
) -> None:
    clip = {
        "silent": lambda: media.silent_mp4(tmp_path / "a.mp4", seconds=1.0),
        "both": lambda: media.mp4(tmp_path / "a.mp4", seconds=1.0),
        "quiet": lambda: media.mp4(
            tmp_path / "a.mp4", seconds=1.0, sounds=[{"codec": "aac", "hertz": 0}]
        ),
        "sound": lambda: media.wav(tmp_path / "a.wav", seconds=1.0),
    }[file]()
    with demo.open(clip, ClipOptions(**options)) as opened:
        notices = opened.ask(question, anyway=True).trace.notices
    found = [notice for notice in notices if notice.startswith("The question asks")]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


# What was used


def test_used_of_a_clip(demo: Model, samples) -> None:
    with demo.open(samples / "duet.mp4") as clip:
        whole = clip.ask(QUESTION).trace.used
    with demo.open(samples / "duet.mp4", start=2.0, end=5.0, fps=1) as clip:
        part = clip.ask(QUESTION).trace.used
    with demo.open(samples / "silent.mp4") as clip:
        silent = clip.ask(QUESTION).trace.used
    with demo.open(samples / "duet.mp4", ClipOptions(video=False)) as clip:
        heard = clip.ask(QUESTION).trace.used
    assert whole == Used(14, 7.0, pytest.approx(7.0, abs=0.05))
    assert part == Used(part.frames, 3.0, pytest.approx(3.0, abs=0.05))
    assert part.frames in (3, 4)
    assert (silent.frames, silent.audio_seconds) == (14, 0.0)
    assert heard == Used(0, 0.0, pytest.approx(7.0, abs=0.05))


def test_used_of_ready_features(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        used = clip.ask(QUESTION, options=SHORT).trace.used
    grids = features.grid[0]
    assert used.frames == grids * model.adapter.video_spec.temporal_patch_size
    assert used.video_seconds == pytest.approx(grids * features.second_per_grid)
    assert used.audio_seconds == pytest.approx(
        features.mel.shape[1] / model.adapter.audio_spec.frames_per_second
    )
    with model.features(Features(mel=features.mel)) as clip:
        heard = clip.ask(QUESTION, options=SHORT).trace.used
    assert (heard.frames, heard.video_seconds) == (0, 0.0)
