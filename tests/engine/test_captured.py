"""The step over fixed buffers gives what the plain loop gives: the captured path, run eagerly.

Recording needs a GPU. Here a step is "recorded" by remembering to run it, which leaves everything
else as it is there: buffers, growth, the token chosen on the device and told one step late.
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
from omnidrop.engine.prefill import Prefilled
from omnidrop.engine.session import Model
from omnidrop.pruning.method import Method
from omnidrop.report.trace import Answer

QUESTION = "What instrument plays first?"
AFTER = "And which colour is shown last?"
GREEDY = GenerateOptions(max_new_tokens=12, logprobs=True)
SAMPLED = GenerateOptions(max_new_tokens=12, logprobs=True, temperature=0.8, seed=5)
NUCLEUS = GenerateOptions(max_new_tokens=12, temperature=1.3, top_p=0.8, seed=1)
UNPRUNED, PRUNED = Method(), omnidrop.OmniDrop(budget=0.3)


class Remembered:
    """Stands in for a recorded step."""

    def __init__(self, step: FixedStep) -> None:
        self.replay = step._run


@pytest.fixture(autouse=True)
def nothing_kept(model: Model) -> None:
    model._steps.clear()


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[FixedStep]:
    """Take steps over fixed buffers on the CPU; the list receives each step when recorded."""
    made: list[FixedStep] = []

    def record(self: FixedStep) -> None:
        made.append(self)
        self._graph = Remembered(self)

    monkeypatch.setattr(decode, "obstacle", lambda adapter: None)
    monkeypatch.setattr(FixedStep, "_record", record)
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
    """Answers of the plain loop, by method and options, with the lengths it left."""
    found = {}
    for method in (UNPRUNED, PRUNED):
        for options in (GREEDY, SAMPLED, NUCLEUS):
            (answer,), (prefilled,) = ask(model, features, method, options)
            assert answer.trace.decode_loop == "plain: the device is cpu"
            found[method.name, id(options)] = answer, prefilled.cache.lengths
    return found


@pytest.fixture(params=[1024, 3], ids=["roomy", "growing"])
def room(request, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Room for all steps at once, or for three before buffers grow over a block's border."""
    if request.param == 3:
        monkeypatch.setattr(captured, "ROOM", 3)
        monkeypatch.setattr(captured, "GROWTH", 2)
        monkeypatch.setattr(captured, "WORTH", 1)
    return request.param


@pytest.mark.parametrize("method", [UNPRUNED, PRUNED], ids=lambda m: m.name)
@pytest.mark.parametrize("options", [GREEDY, SAMPLED, NUCLEUS], ids=["greedy", "sampled", "top-p"])
def test_the_same_tokens(model, features, plain, recordings, room, method, options) -> None:
    wanted, lengths = plain[method.name, id(options)]
    (answer,), (prefilled,) = ask(model, features, method, options)
    assert answer.trace.decode_loop == "captured"
    assert len(recordings) == 1 if room > 3 else len(recordings) > 2
    assert answer.token_ids == wanted.token_ids
    assert (answer.text, answer.stop) == (wanted.text, wanted.stop)
    assert answer.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
    assert prefilled.cache.lengths == lengths
    assert len(set(wanted.token_ids)) > 3


@pytest.mark.parametrize("place", [0, 1, 2, 5, 11])
def test_an_overrun_step_leaves_no_trace(
    model, features, plain, recordings, monkeypatch, place
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


def test_a_second_question_and_choices_after_it(model, features, recordings, monkeypatch) -> None:
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


def test_a_recorded_step_serves_the_next_question(model, features, recordings) -> None:
    steps = Steps()
    with model.features(features) as session:
        session._decoding = steps
        first = session.ask(QUESTION, method=PRUNED, options=GREEDY)
        again = session.ask(QUESTION, method=PRUNED, options=GREEDY)
        assert len(recordings) == 1
        other = session.ask(QUESTION, method=PRUNED, options=SAMPLED)
        assert len(recordings) == 2
    assert first.token_ids == again.token_ids != other.token_ids


def test_a_cache_that_somebody_holds_is_not_written_to(model, features, recordings) -> None:
    kept: list[Prefilled] = []
    with model.features(features) as session:
        session._decoding = Steps()
        session.ask(QUESTION, method=PRUNED, options=GREEDY, on_prefill=kept.append)
        before = [kept[0].cache.keys(i).clone() for i in range(len(kept[0].cache))]
        session.ask(AFTER, method=PRUNED, options=GREEDY)
    assert len(recordings) == 2
    assert all(torch.equal(kept[0].cache.keys(i), b) for i, b in enumerate(before))


def test_the_plain_loop_can_go_on_from_it(model, features, recordings, monkeypatch) -> None:
    _, (fixed,) = ask(model, features, PRUNED, GREEDY)
    monkeypatch.setattr(decode, "obstacle", lambda adapter: "asked not to")
    _, (plainly,) = ask(model, features, PRUNED, GREEDY)
    got, wanted = (
        decode.step(model.adapter, p.cache, [5, 7], p.next_position + 11)[1]
        for p in (fixed, plainly)
    )
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_where_recording_fails_the_steps_run_as_they_are(model, features, plain, monkeypatch):
    monkeypatch.setattr(decode, "obstacle", lambda adapter: None)

    def refuse(self: FixedStep) -> None:
        self.failed = "no graphs here"

    monkeypatch.setattr(FixedStep, "_record", refuse)
    wanted, lengths = plain[PRUNED.name, id(GREEDY)]
    (answer,), (prefilled,) = ask(model, features, PRUNED, GREEDY)
    assert answer.token_ids == wanted.token_ids
    assert answer.trace.decode_loop == "plain: no graphs here"
    assert prefilled.cache.lengths == lengths


def test_where_the_step_itself_fails_the_plain_loop_runs(model, features, plain, monkeypatch):
    monkeypatch.setattr(decode, "obstacle", lambda adapter: None)

    def refuse(self: FixedStep) -> None:
        raise RuntimeError("no such kernel\nand a long trace")

    monkeypatch.setattr(FixedStep, "_run", refuse)
    wanted, lengths = plain[PRUNED.name, id(GREEDY)]
    (answer,), (prefilled,) = ask(model, features, PRUNED, GREEDY)
    assert (answer.token_ids, prefilled.cache.lengths) == (wanted.token_ids, lengths)
    assert answer.trace.decode_loop == "plain: no such kernel"


def test_a_token_is_told_while_the_next_step_runs(model, features, recordings, monkeypatch):
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
    # Two tokens come as soon as they are known; from the third on a replay is under way.
    assert seen == [0, 1, 3, 4, 5, 6, 7, 7]


def test_an_answer_of_few_tokens_is_made_by_the_same_steps(model, features, plain, recordings):
    wanted, _ = plain[PRUNED.name, id(GREEDY)]
    (answer,), _ = ask(model, features, PRUNED, GenerateOptions(max_new_tokens=3))
    assert answer.token_ids == wanted.token_ids[:3]
    assert answer.trace.decode_loop == "plain: too few tokens"
    assert not recordings


@pytest.mark.parametrize(
    ("device", "attention", "quantization", "why", "unrecorded"),
    [
        ("cpu", "sdpa", None, "the device is cpu", None),
        ("cuda", "eager", None, "eager attention needs to know its sizes", None),
        ("cuda", "sdpa", "8bit", None, "8-bit products ask the host for outliers"),
        ("cuda", "sdpa", "4bit", None, None),
        ("cuda", "flash_attention_2", None, None, None),
    ],
)
def test_what_stands_against_it(device, attention, quantization, why, unrecorded) -> None:
    info = SimpleNamespace(attention=attention, quantization=quantization)
    adapter = SimpleNamespace(device=torch.device(device), info=info)
    assert captured.obstacle(adapter) == why
    assert captured.unrecordable(adapter) == unrecorded
