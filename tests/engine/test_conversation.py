"""Conversations: what a follow-up sees, which tokens it selects, what it reuses and what fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import omnidrop
from omnidrop.engine import prefill as prefill_module
from omnidrop.engine.conversation import DEMO_NOTICE
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.engine.prefill import Prefilled
from omnidrop.engine.session import Session
from omnidrop.errors import UsageError
from omnidrop.pruning.method import Method
from omnidrop.report.trace import Answer
from omnidrop.stages import StageName
from omnidrop.testing import media

FIRST = "What is heard when the red square moves?"
SECOND = "And who is on screen then?"
THIRD = "Which of them is louder?"
OPTIONS = GenerateOptions(max_new_tokens=5, survivors=True, logprobs=True)
PRUNED = omnidrop.OmniDrop(budget=0.5)


def asked_words(model: Model, session: Session) -> str:
    """Return the words of the latest prompt that count as the question."""
    assert session.prompt is not None
    return model.adapter.text.decode(session.prompt.ids[session.prompt.tokens.question].tolist())


def reused(answer: Answer) -> bool:
    return any(s.reused and s.name.startswith("prefix") for s in answer.trace.stages)


def test_a_follow_up_sees_the_turns_and_only_its_own_words_are_the_question(
    model: Model, features: Features
) -> None:
    with model.features(features) as session:
        conversation = session.conversation()
        first = conversation.ask(FIRST, options=OPTIONS)
        second = conversation.ask(SECOND, options=OPTIONS)
        assert asked_words(model, session) == SECOND
        assert session.prompt is not None
        ids = session.prompt.ids.tolist()
        alone = session.ask(SECOND, options=OPTIONS)
    assert conversation.turns == (first, second)
    answer = list(first.token_ids)
    places = [i for i in range(len(ids)) if ids[i : i + len(answer)] == answer]
    assert len(answer) == 5
    assert len(places) == 1
    assert ids[places[0] + len(answer)] in model.adapter.stop_ids
    assert FIRST in model.adapter.text.decode(ids[: places[0]])
    assert second.trace.text_tokens > alone.trace.text_tokens + len(answer)
    assert second.logprobs != alone.logprobs
    assert second.trace.settings["earlier"] == [
        {"question": FIRST, "answer": first.text, "token_ids": first.token_ids}
    ]
    assert alone.trace.settings["earlier"] == []


def test_each_turn_selects_by_its_own_question_and_reuses_the_clip(
    model: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill_module, "SPLIT_FROM", 1)
    with model.features(features) as session:
        first = session.ask(FIRST, method=PRUNED, options=OPTIONS)
        follow = session.ask(SECOND, method=PRUNED, options=OPTIONS, earlier=[first])
    with model.features(features) as session:
        fresh = session.ask(SECOND, method=PRUNED, options=OPTIONS, earlier=[first], reuse=False)
    assert reused(follow)
    assert not reused(fresh)
    assert follow.logprobs == fresh.logprobs
    assert follow.trace.survivors == fresh.trace.survivors
    assert follow.trace.survivors[-1] != first.trace.survivors[-1]
    assert follow.trace.realised_budget == pytest.approx(0.5, abs=0.02)


def test_a_choice_is_a_turn(model: Model, features: Features) -> None:
    with model.features(features) as session:
        conversation = session.conversation()
        first = conversation.ask("Day or night?", choices=["day", "night"])
        conversation.ask(SECOND, choices=["yes", "no"])
        assert session.prompt is not None
        ids = session.prompt.ids.tolist()
    said = model.adapter.text.encode(first.text)[0]
    ends = [i for i, token in enumerate(ids) if token in model.adapter.stop_ids]
    assert any(ids[i - len(said) : i] == said for i in ends)


def test_a_question_without_an_answer_is_no_turn(model: Model, features: Features) -> None:
    def interrupt(prefilled: Prefilled) -> None:
        raise KeyboardInterrupt

    with model.features(features) as session:
        conversation = session.conversation()
        first = conversation.ask(FIRST, options=OPTIONS)
        with pytest.raises(UsageError, match="empty"):
            conversation.ask("  ")
        with pytest.raises(KeyboardInterrupt):
            conversation.ask(THIRD, on_prefill=interrupt)
        assert conversation.turns == (first,)
        second = conversation.ask(SECOND, options=OPTIONS)
        undisturbed = session.ask(SECOND, options=OPTIONS, earlier=[first], reuse=False)
        assert second.token_ids == undisturbed.token_ids
        conversation.reset()
        assert conversation.turns == ()
        assert conversation.ask(FIRST, options=OPTIONS).token_ids == first.token_ids
        assert session.conversation([first]).turns == (first,)


class Narrow:
    """A template whose model was trained on fewer positions."""

    def __init__(self, template: Any, max_positions: int) -> None:
        self._template, self.max_positions = template, max_positions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._template, name)


def test_the_oldest_turns_are_left_out_where_the_positions_end(
    model: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model.features(features) as session:

        def ask(question: str, earlier: list[Answer]) -> Answer:
            return session.ask(question, method=Method(), options=OPTIONS, earlier=earlier)

        def end() -> int:
            assert session.prompt is not None
            return int(session.prompt.next_position) + OPTIONS.max_new_tokens

        first = ask(FIRST, [])
        second = ask(SECOND, [first])
        with_one = ask(THIRD, [second])
        fits = end()
        ask(THIRD, [first, second])
        assert end() > fits
        template = model.adapter.template
        monkeypatch.setattr(model.adapter, "template", Narrow(template, fits))
        third = ask(THIRD, [first, second])
        (notice,) = third.trace.notices
        assert notice.startswith("The oldest turn was left out of the conversation")
        assert [turn["question"] for turn in third.trace.settings["earlier"]] == [SECOND]
        assert third.token_ids == with_one.token_ids
        # Leaving turns out cannot help a clip that is too long on its own.
        monkeypatch.setattr(model.adapter, "template", Narrow(template, 40))
        third = ask(THIRD, [first, second])
        (notice,) = third.trace.notices
        assert "beyond the 40 the model was trained on" in notice
        assert len(third.trace.settings["earlier"]) == 2


def test_a_model_that_learned_single_questions_says_so(
    model: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    with model.features(features) as session:
        first = session.ask(FIRST, options=OPTIONS)
        monkeypatch.setattr(model.adapter, "info", replace(model.adapter.info, demo=True))
        assert DEMO_NOTICE not in session.ask(SECOND, options=OPTIONS).trace.notices
        follow = session.ask(SECOND, options=OPTIONS, earlier=[first])
        assert DEMO_NOTICE in follow.trace.notices


def test_a_session_goes_on_after_an_interrupt_at_any_stage(model: Model, tmp_path: Path) -> None:
    film = media.mp4(tmp_path / "film.mp4", seconds=3.0)
    stages: list[str] = []

    def note(stage: str, done: float, total: float | None) -> None:
        if stage not in stages:
            stages.append(stage)

    with model.open(film) as session:
        wanted = session.ask(FIRST, options=OPTIONS, progress=note)
    assert {StageName.FRAMES, StageName.AUDIO_TOWER, StageName.PREFILL} <= set(stages)
    for place in (*stages, "first token"):

        def interrupt(stage: str, done: float, total: float | None, at: str = place) -> None:
            if stage == at:
                raise KeyboardInterrupt

        def interrupt_answer(piece: str, at: str = place) -> None:
            if at == "first token":
                raise KeyboardInterrupt

        with model.open(film) as session:
            conversation = session.conversation()
            with pytest.raises(KeyboardInterrupt):
                conversation.ask(
                    FIRST, options=OPTIONS, progress=interrupt, on_text=interrupt_answer
                )
            again = conversation.ask(FIRST, options=OPTIONS)
            assert again.logprobs == wanted.logprobs, place
            assert conversation.turns == (again,)
