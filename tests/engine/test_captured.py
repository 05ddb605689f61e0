"""The step over fixed buffers gives what the plain loop gives: the captured path, run eagerly.

Capturing needs a GPU. Here a replay calls the step eagerly, and everything else is as on a GPU:
buffers, growth, token selection on the device, and reading each token one step late.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

import omnidrop
from omnidrop.engine import captured, decode
from omnidrop.engine.captured import FixedStep, Steps
from omnidrop.engine.decode import GenerateOptions, generate
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.engine.prefill import Prefilled
from omnidrop.pruning.method import Method
from omnidrop.report.trace import Answer
from tests.some import every

QUESTION = "What instrument plays first?"
AFTER = "And which colour is shown last?"
GREEDY = GenerateOptions(max_new_tokens=12, logprobs=True)
SAMPLED = GenerateOptions(max_new_tokens=12, logprobs=True, temperature=0.8, seed=5)
NUCLEUS = GenerateOptions(max_new_tokens=12, temperature=1.3, top_p=0.8, seed=1)
UNPRUNED, PRUNED = Method(), omnidrop.OmniDrop(budget=0.3)


class EagerGraph:
    """Stands in for a captured graph: `replay` runs the step eagerly."""

    def __init__(self, step: FixedStep) -> None:
        self.replay = step._run


@pytest.fixture(autouse=True)
def no_kept_step(model: Model) -> None:
    model._steps.clear()


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[FixedStep]:
    """Run steps over fixed buffers on the CPU; the list receives each step when it is captured."""
    made: list[FixedStep] = []

    def capture(self: FixedStep) -> None:
        made.append(self)
        self._graph = EagerGraph(self)

    monkeypatch.setattr(decode, "obstacle", lambda adapter: None)
    monkeypatch.setattr(FixedStep, "_capture", capture)
    return made


def ask(
    model: Model, clip: Features, method: Method, options: GenerateOptions, *questions: str
) -> tuple[list[Answer], list[Prefilled]]:
    kept: list[Prefilled] = []
    with model.features(clip) as session:
        answers = [
            session.ask(q, method=method, options=options, on_prefill=kept.append)
            for q in questions or (QUESTION,)
        ]
    return answers, kept


@pytest.fixture(scope="module")
def plain(model: Model, features: Features) -> dict[tuple[str, int], tuple[Answer, tuple]]:
    """Answers of the plain loop by method and options, and the cache's lengths after each."""
    found = {}
    for method in (UNPRUNED, PRUNED):
        for options in (GREEDY, SAMPLED, NUCLEUS):
            (answer,), (prefilled,) = ask(model, features, method, options)
            assert answer.trace.decode_loop == "plain: the device is cpu"
            found[method.name, id(options)] = answer, prefilled.cache.lengths
    return found


@pytest.fixture(params=[1024, 3], ids=["roomy", "growing"])
def room(request, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Buffers for all steps, or for three steps at a time, so that they grow several times."""
    if request.param == 3:
        monkeypatch.setattr(captured, "ROOM", 3)
        monkeypatch.setattr(captured, "GROWTH", 2)
        monkeypatch.setattr(captured, "WORTH", 1)
    return request.param


@pytest.mark.parametrize("method", [UNPRUNED, PRUNED], ids=lambda m: m.name)
@pytest.mark.parametrize(
    "options", every(2, [GREEDY, SAMPLED, NUCLEUS]), ids=["greedy", "sampled", "top-p"]
)
def test_the_same_tokens(model, features, plain, captures, room, method, options) -> None:
    wanted, lengths = plain[method.name, id(options)]
    (answer,), (prefilled,) = ask(model, features, method, options)
    assert answer.trace.decode_loop == "captured"
    assert len(captures) == 1 if room > 3 else len(captures) > 2
    assert answer.token_ids == wanted.token_ids
    assert (answer.text, answer.stop) == (wanted.text, wanted.stop)
    assert answer.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
    assert prefilled.cache.lengths == lengths
    assert len(set(wanted.token_ids)) > 3


@pytest.mark.parametrize("place", [0, 1, 2, 5, 11])
def test_steps_past_the_stop_token_are_rewound(
    model, features, plain, captures, monkeypatch, place
) -> None:
    wanted, _ = plain[PRUNED.name, id(GREEDY)]
    end = wanted.token_ids[place]
    monkeypatch.setattr(model.adapter, "stop_ids", frozenset({end}))
    (answer,), (prefilled,) = ask(model, features, PRUNED, GREEDY)
    monkeypatch.setattr(decode, "obstacle", lambda adapter: "asked not to")
    (without,), (other,) = ask(model, features, PRUNED, GREEDY)
    assert answer.stop == without.stop == "stop token"
    assert answer.token_ids == without.token_ids == wanted.token_ids[: len(answer.token_ids)]
    assert len(answer.token_ids) <= place
    assert prefilled.cache.lengths == other.cache.lengths
    for layer in range(len(other.cache)):
        torch.testing.assert_close(prefilled.cache.keys(layer), other.cache.keys(layer))


def test_a_second_question_and_choices_after_it(model, features, captures, monkeypatch) -> None:
    def both() -> tuple[list[Answer], Answer]:
        with model.features(features) as session:
            answers = [
                session.ask(q, method=PRUNED, options=GREEDY) for q in (QUESTION, AFTER, QUESTION)
            ]
            return answers, session.ask(AFTER, method=PRUNED, choices=("piano", "a violin"))

    monkeypatch.setattr("omnidrop.engine.prefill.SPLIT_FROM", 1)
    fixed, scored = both()
    monkeypatch.setattr(decode, "obstacle", lambda adapter: "asked not to")
    plainly, wanted = both()
    assert [a.token_ids for a in fixed] == [a.token_ids for a in plainly]
    assert fixed[0].token_ids == fixed[2].token_ids != fixed[1].token_ids
    assert [c.text for c in scored.choices] == [c.text for c in wanted.choices]
    assert [c.logprob for c in scored.choices] == pytest.approx(
        [c.logprob for c in wanted.choices], abs=1e-5
    )
    assert (plainly[0].trace.decode_loop, scored.trace.decode_loop) == ("plain: asked not to", "")


def test_a_captured_step_is_reused_for_the_next_question(model, features, captures) -> None:
    steps = Steps()
    with model.features(features) as session:
        session._decoding = steps
        first = session.ask(QUESTION, method=PRUNED, options=GREEDY)
        again = session.ask(QUESTION, method=PRUNED, options=GREEDY)
        assert len(captures) == 1
        other = session.ask(QUESTION, method=PRUNED, options=SAMPLED)
        assert len(captures) == 2
    assert first.token_ids == again.token_ids != other.token_ids


def test_a_cache_that_is_still_referenced_is_not_overwritten(model, features, captures) -> None:
    kept: list[Prefilled] = []
    with model.features(features) as session:
        session._decoding = Steps()
        session.ask(QUESTION, method=PRUNED, options=GREEDY, on_prefill=kept.append)
        before = [kept[0].cache.keys(i).clone() for i in range(len(kept[0].cache))]
        session.ask(AFTER, method=PRUNED, options=GREEDY)
    assert len(captures) == 2
    assert all(torch.equal(kept[0].cache.keys(i), b) for i, b in enumerate(before))


def test_the_plain_loop_can_continue_after_captured_steps(
    model, features, captures, monkeypatch
) -> None:
    _, (fixed,) = ask(model, features, PRUNED, GREEDY)
    monkeypatch.setattr(decode, "obstacle", lambda adapter: "asked not to")
    _, (plainly,) = ask(model, features, PRUNED, GREEDY)
    got, wanted = (
        decode.step(model.adapter, p.cache, [5, 7], p.next_position + 11)[1]
        for p in (fixed, plainly)
    )
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_steps_run_eagerly_if_capturing_fails(model, features, plain, monkeypatch):
    monkeypatch.setattr(decode, "obstacle", lambda adapter: None)

    def refuse(self: FixedStep) -> None:
        self.failed = "no graphs here"

    monkeypatch.setattr(FixedStep, "_capture", refuse)
    wanted, lengths = plain[PRUNED.name, id(GREEDY)]
    (answer,), (prefilled,) = ask(model, features, PRUNED, GREEDY)
    assert answer.token_ids == wanted.token_ids
    assert answer.trace.decode_loop == "plain: no graphs here"
    assert prefilled.cache.lengths == lengths


def test_the_plain_loop_runs_if_the_step_fails(model, features, plain, monkeypatch):
    monkeypatch.setattr(decode, "obstacle", lambda adapter: None)

    def refuse(self: FixedStep) -> None:
        raise RuntimeError("no such kernel\nand a long trace")

    monkeypatch.setattr(FixedStep, "_run", refuse)
    wanted, lengths = plain[PRUNED.name, id(GREEDY)]
    (answer,), (prefilled,) = ask(model, features, PRUNED, GREEDY)
    assert (answer.token_ids, prefilled.cache.lengths) == (wanted.token_ids, lengths)
    assert answer.trace.decode_loop == "plain: no such kernel"


def test_a_token_is_yielded_while_the_next_step_runs(model, features, captures, monkeypatch):
    _, (prefilled,) = ask(model, features, PRUNED, GenerateOptions(max_new_tokens=1))
    taken: list[int] = []
    advance = FixedStep.advance

    def count(self: FixedStep) -> None:
        advance(self)
        taken.append(self.taken)

    monkeypatch.setattr(FixedStep, "advance", count)
    seen: list[int] = []
    options = GenerateOptions(max_new_tokens=8)
    generate(model.adapter, prefilled, options, on_token=lambda: seen.append(len(taken)))
    # The first two tokens are yielded at once; from the third on, the next step already runs.
    assert seen == [0, 1, 3, 4, 5, 6, 7, 7]


def test_a_short_answer_uses_the_same_steps(model, features, plain, captures):
    wanted, _ = plain[PRUNED.name, id(GREEDY)]
    (answer,), _ = ask(model, features, PRUNED, GenerateOptions(max_new_tokens=3))
    assert answer.token_ids == wanted.token_ids[:3]
    assert answer.trace.decode_loop == "plain: too few tokens"
    assert not captures


@pytest.mark.parametrize(
    ("device", "attention", "quantization", "why", "uncaptured"),
    [
        ("cpu", "sdpa", None, "the device is cpu", None),
        ("cuda", "eager", None, "eager attention needs sizes on the host", None),
        ("cuda", "sdpa", "8bit", None, "8-bit matrix products synchronise with the host"),
        ("cuda", "sdpa", "4bit", None, None),
        ("cuda", "flash_attention_2", None, None, None),
    ],
)
def test_reasons_against_fixed_buffers(device, attention, quantization, why, uncaptured) -> None:
    info = SimpleNamespace(attention=attention, quantization=quantization)
    adapter = SimpleNamespace(device=torch.device(device), info=info)
    assert captured.obstacle(adapter) == why
    assert captured.not_capturable(adapter) == uncaptured
