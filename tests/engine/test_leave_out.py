"""The proof by leaving out: what is removed, what stays where it was, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

from omnidrop.engine.encode import Encoded
from omnidrop.engine.leave_out import sentence, without
from omnidrop.engine.model import Model
from omnidrop.engine.prefill import prefill
from omnidrop.engine.timing import Meter
from omnidrop.evidence import EvidenceReading, Rate
from omnidrop.options import GenerateOptions
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.pruning.registry import get_method
from omnidrop.report.trace import LeftOut, Moment
from tests.some import every

QUESTION = "What instrument plays first?"
OPTIONS = GenerateOptions(max_new_tokens=4)


def knowing(model: Model, method: Method) -> Model:
    """The model, with a reading said to be above chance for the method."""
    rates = (Rate(method.name, method.budget, 100, 90, 0.8, 0.95, 0.5),)
    return model.with_reading(EvidenceReading((1,), "last", (0,), rates=rates))


def test_only_the_tokens_asked_for_are_gone(model, features) -> None:
    with model.features(features) as session:
        encoded = session.encode()
    adapter = model.adapter
    prompt = build_prompt(adapter.text, adapter.template, QUESTION, encoded.media)
    tokens = prompt.tokens
    gone = tokens.av & (tokens.chunk == 1)
    assert 0 < int(gone.sum()) < int(tokens.av.sum())
    less, rest = without(prompt, encoded, gone)
    torch.testing.assert_close(less.positions, prompt.positions[:, ~gone])
    torch.testing.assert_close(less.ids, prompt.ids[~gone])
    assert less.next_position == prompt.next_position
    assert 1 not in less.tokens.chunk
    before = whole_rows(encoded, tokens.video[tokens.av])
    after = whole_rows(rest, less.tokens.video[less.tokens.av])
    torch.testing.assert_close(after, before[~gone[tokens.av]])


def whole_rows(encoded: Encoded, video: torch.Tensor) -> torch.Tensor:
    return encoded.in_prompt_order(video)[0]


NAMES = ["none", "omnidrop", "uniform", "omnidrop-auto", "seats", "dycoke"]


@pytest.mark.parametrize(("name", "choices"), every(3, product(NAMES, ((), ("piano", "flute")))))
def test_every_moment_is_left_out_once(model, features, name, choices) -> None:
    method = get_method(name, budget=1.0 if name == "none" else 0.5)
    with knowing(model, method).features(features) as session:
        answer = session.ask(
            QUESTION, method=method, choices=choices, options=OPTIONS, evidence=True
        )
        plain = session.ask(QUESTION, method=method, choices=choices, options=OPTIONS)
    assert (answer.text, answer.token_ids, answer.choices) == (
        plain.text,
        plain.token_ids,
        plain.choices,
    )
    assert plain.left_out == ()
    assert tuple(one.moment for one in answer.left_out) == answer.trace.moments
    for one in answer.left_out:
        assert 0 <= one.probability <= 1
        assert one.changed == (one.text.strip() != answer.text.strip())
        if choices:
            given = {choice.text: choice.probability for choice in answer.choices}
            assert one.whole == pytest.approx(given[answer.text], abs=1e-5)
    assert answer.trace.notices[-1] == sentence(answer)


def test_the_whole_probability_is_that_of_the_answer(model, features) -> None:
    method = Method()
    options = replace(OPTIONS, logprobs=True)
    with knowing(model, method).features(features) as session:
        answer = session.ask(QUESTION, method=method, options=options, evidence=True)
    assert answer.stop == "max new tokens"
    assert answer.left_out
    wanted = float(torch.tensor(answer.logprobs).sum().exp())
    assert answer.left_out[0].whole == pytest.approx(wanted, rel=1e-3)


def test_leaving_out_is_as_asking_about_the_rest(model, features) -> None:
    """One token's probability, against a prefill of the prompt without the moment."""
    method, one_token = Method(), GenerateOptions(max_new_tokens=1)
    with knowing(model, method).features(features) as session:
        answer = session.ask(QUESTION, method=method, options=one_token, evidence=True)
        encoded = session.encode()
    moment = answer.left_out[0].moment
    inside = [moment.start <= chunk.start < moment.end for chunk in answer.trace.chunks]
    assert any(inside)
    assert not all(inside)
    adapter = model.adapter
    prompt = build_prompt(adapter.text, adapter.template, QUESTION, encoded.media)
    chosen = torch.tensor(inside)[prompt.tokens.chunk.long().clamp_min(0)] & prompt.tokens.av
    less, rest = without(prompt, encoded, chosen)
    prefilled = prefill(adapter, less, rest, method, Meter(adapter.device))
    first = prefilled.logits.log_softmax(-1)[answer.token_ids[0]]
    assert answer.left_out[0].probability == pytest.approx(float(first.exp()), rel=1e-4)
    assert answer.left_out[0].probability != pytest.approx(answer.left_out[0].whole, rel=1e-3)


def left_out(changed: bool, probability: float, start: float = 2.0) -> LeftOut:
    moment = Moment(start, start + 2, 0.9)
    return LeftOut(moment, "flute" if changed else "piano", changed, probability, 0.8)


def test_what_it_hangs_on_is_said(model, features) -> None:
    with model.features(features) as session:
        answer = session.ask(QUESTION, options=OPTIONS)
    other, same, weaker = left_out(True, 0.1), left_out(False, 0.7, 6), left_out(False, 0.3, 4)
    cases = {
        (): (None, "no part of the clip stands out"),
        (same,): (None, "without 0:06–0:08 the answer is the same, so it does not hang on that"),
        (same, other): (other, "without 0:02–0:04 the answer is 'flute', so it hangs on that"),
        (same, weaker): (weaker, "a probability of 30 % instead of 80 %"),
        (weaker, other): (other, "flute"),
    }
    for given, (wanted, said) in cases.items():
        shown = replace(answer, left_out=given)
        assert shown.hangs_on == wanted
        assert said in sentence(shown)
