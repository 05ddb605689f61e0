"""Answers that end at given texts, that tell the likeliest tokens, and that are interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import omnidrop
from omnidrop.engine import decode, prefill
from omnidrop.engine.answer_stream import AnswerStream, TextStream
from omnidrop.engine.captured import FixedStep
from omnidrop.engine.conversation import Said
from omnidrop.engine.decode import Token
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.errors import UsageError
from omnidrop.models.adapter import Thinking
from omnidrop.options import GenerateOptions
from omnidrop.report.trace import Answer

QUESTION = "What instrument plays first?"
SHORT = GenerateOptions(max_new_tokens=8)
letters = st.text("abc", max_size=12)
stops = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3)


def decoded(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


def first_end(text: str, ends: Sequence[str]) -> str:
    """Return the text before the stop that is complete first, read letter by letter."""
    for length in range(len(text) + 1):
        found = [at for at in (text[:length].find(end) for end in ends) if at >= 0]
        if found:
            return text[: min(found)]
    return text


@given(letters, stops)
def test_a_text_ends_before_the_first_stop(text: str, ends: list[str]) -> None:
    pieces: list[str] = []
    stream = TextStream(decoded, pieces.append, stops=ends)
    for letter in text:
        stream.push(ord(letter))
        if stream.stopped:
            break
    expected = first_end(text, ends)
    assert stream.finish() == expected
    assert "".join(pieces) == expected
    assert stream.stopped == (expected != text)


def test_what_may_begin_a_stop_waits() -> None:
    pieces: list[str] = []
    stream = TextStream(decoded, pieces.append, stops=["END"])
    for letter in "an ENtry":
        stream.push(ord(letter))
    assert pieces[:4] == ["a", "n", " ", "ENt"]


def test_thoughts_do_not_end_an_answer() -> None:
    stream = AnswerStream(decoded, Thinking(ord("<"), ord(">")), None, ["x"])
    told = []
    for letter in "<x>yxz":
        told.append(stream.is_thought(ord(letter)))
        stream.push(ord(letter))
    assert told == [True, True, True, False, False, False]
    assert stream.finish() == "y"
    assert stream.stopped


@pytest.mark.parametrize(
    "wrong", [{"top_logprobs": -1}, {"top_logprobs": 21}, {"stop": ("",)}, {"stop": ("a", "")}]
)
def test_options_that_are_not_valid(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        GenerateOptions(**wrong)


def asked(model: Model, features: Features, **settings: Any) -> tuple[Answer, list[Token]]:
    told: list[Token] = []
    options = GenerateOptions(max_new_tokens=10, logprobs=True, **settings)
    with model.features(features) as session:
        return session.ask(QUESTION, options=options, on_token=told.append), told


def test_an_answer_ends_at_a_text(model: Model, features: Features) -> None:
    whole, told = asked(model, features)
    assert tuple(token.id for token in told) == whole.token_ids
    assert tuple(token.logprob for token in told) == whole.logprobs
    end = whole.text[len(whole.text) // 2 :][:2]
    cut, _ = asked(model, features, stop=(end,))
    assert cut.text == whole.text[: whole.text.index(end)]
    assert cut.stop == "stop sequence"
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
    assert len(cut.token_ids) < len(whole.token_ids)
    assert cut.trace.settings["stop"] == (end,)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_likeliest_tokens_are_told(
    model: Model,
    features: Features,
    fixed: bool,
    temperature: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the plain loop, and by the step over fixed buffers that GPUs use."""
    seen: list[torch.Tensor] = []
    usual = model.adapter.logits

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(usual(hidden))
        return seen[-1]

    if fixed:
        monkeypatch.setattr(decode, "obstacle", lambda adapter: None)
        monkeypatch.setattr(FixedStep, "_capture", lambda self: None)
    model._steps.clear()
    monkeypatch.setattr(model.adapter, "logits", logits)
    answer, told = asked(model, features, top_logprobs=4, temperature=temperature)
    model._steps.clear()
    assert len(told) == len(answer.token_ids) == 10
    for token, row in zip(told, seen, strict=False):
        logprobs = row.flatten().log_softmax(-1)
        best = logprobs.topk(4)
        assert [one for one, _ in token.top] == best.indices.tolist()
        assert [p for _, p in token.top] == pytest.approx(best.values.tolist())
        assert token.logprob == pytest.approx(float(logprobs[token.id]))


def test_telling_the_likeliest_changes_no_token(model: Model, features: Features) -> None:
    assert (
        asked(model, features)[0].token_ids == asked(model, features, top_logprobs=20)[0].token_ids
    )


class Interrupt(Exception):
    """Ends a question."""


@pytest.mark.parametrize("method", [None, omnidrop.OmniDrop(budget=0.5)])
def test_a_question_can_be_interrupted_anywhere(
    model: Model,
    features: Features,
    method: omnidrop.Method | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two layers or tokens; the session then answers as if nothing had been."""
    monkeypatch.setattr(prefill, "SPLIT_FROM", 0)
    options = GenerateOptions(max_new_tokens=4)
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    with model.features(features) as session:
        expected = session.ask(QUESTION, method=method, options=options, alive=count)
    assert calls == model.info.text.layers - 1 + 4
    with model.features(features) as session:
        for last in range(1, calls + 1):
            left = last

            def end() -> None:
                nonlocal left
                left -= 1
                if not left:
                    raise Interrupt

            with pytest.raises(Interrupt):
                session.ask(QUESTION, method=method, options=options, alive=end)
            again = session.ask(QUESTION, method=method, options=options)
            assert again.token_ids == expected.token_ids


@pytest.mark.slow
def test_evidence_and_check_are_interrupted_too(model: Model, features: Features) -> None:
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    with model.features(features) as session:
        session.ask(QUESTION, alive=count, method=omnidrop.OmniDrop(budget=0.5), options=SHORT)
        once, calls = calls, 0
        session.ask(
            QUESTION, alive=count, check=True, method=omnidrop.OmniDrop(budget=0.5), options=SHORT
        )
    assert calls > once + model.info.text.layers - 2


@pytest.mark.slow
def test_a_turn_of_which_only_the_text_is_known(model: Model, features: Features) -> None:
    ids = tuple(model.adapter.text.encode("A drum.")[0])
    with model.features(features) as session:
        by_text = session.ask("And then?", earlier=[Said(QUESTION, "A drum.")])
        by_ids = session.ask("And then?", earlier=[Said(QUESTION, "A drum.", ids)])
        first = session.ask(QUESTION)
        said = Said(QUESTION, first.text, first.token_ids)
        assert (
            session.ask("And then?", earlier=[said]).token_ids
            == session.ask("And then?", earlier=[first]).token_ids
        )
    assert by_text.token_ids == by_ids.token_ids
    (turn,) = by_text.trace.settings["earlier"]
    assert turn == {"question": QUESTION, "answer": "A drum.", "token_ids": None}


def test_what_a_session_holds_is_counted(
    model: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill, "SPLIT_FROM", 0)
    with model.features(features) as session:
        assert session.bytes == 0
        encoded = session.encode()
        assert session.bytes == encoded.bytes > 0
        session.ask(QUESTION, method=omnidrop.OmniDrop(budget=0.5), options=SHORT)
        assert session.bytes == encoded.bytes + session.prefixes.bytes
        assert session.prefixes.bytes > 0
    assert session.bytes == 0
