"""Prefix KV reuse: a later question reuses the clip's first layers; the answer is the same."""

from __future__ import annotations

import gc
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
import torch

import omnidrop
from omnidrop.engine import prefill as prefill_module
from omnidrop.engine import session as session_module
from omnidrop.engine.decode import GenerateOptions, generate
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model, load
from omnidrop.engine.prefill import Prefilled
from omnidrop.models.family import registered
from omnidrop.models.loading import LoadOptions
from omnidrop.pruning.method import Entry, Method, MethodState, Mix, Plan
from omnidrop.report.trace import Answer
from omnidrop.testing.made_up_family import FAMILY
from tests.some import every
from tests.tiny import make_features

FIRST = "Who is on screen then, and what is heard when the red square moves?"
QUESTION = "What instrument plays first?"
OPTIONS = GenerateOptions(max_new_tokens=6, survivors=True, logprobs=True, seed=3)
LAYERS = 6


@dataclass
class Drawn(MethodState):
    """The random numbers drawn so far."""

    numbers: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Remembering(Method):
    """An adaptive method with random numbers and state, which later reads the question."""

    name: ClassVar[str] = "remembering"
    at_entry: bool = True

    def plan(self, tokens, layers):
        return Plan(len(tokens), (len(tokens),) * layers, adaptive=True)

    def start(self, plan):
        return Drawn()

    def enter(self, view, plan):
        if self.at_entry:
            view.state.numbers.append(float(torch.rand(1, generator=view.generator)))
        return Entry(torch.arange(len(view.tokens)))

    def keep(self, view, count):
        drawn = view.state.numbers
        drawn.append(float(torch.rand(1, generator=view.generator)))
        share = 0.5 + sum(drawn) / (4 * len(drawn))
        scores = view.attention("all-text")
        index = scores.topk(max(1, int(share * len(scores)))).indices.sort().values
        places = torch.arange(len(index))
        mix = Mix(places.repeat(2), torch.cat((index, index.flip(0))), torch.ones(2 * len(index)))
        return Entry(index, mix)


#: Method → number of layers, of six, whose clip rows are reused; None for those up to the first
#: drop, which depends on the number of tokens.
REUSED: list[tuple[Method, int | None]] = [
    (Method(), 6),
    (omnidrop.OmniDrop(budget=0.5), None),
    (omnidrop.OmniDrop(budget=0.5, cache="cut"), None),
    (omnidrop.get_method("none+omnidrop", budget=0.5, rows="all-text"), 2),
    (omnidrop.FastV(budget=0.6), 2),
    (omnidrop.Uniform(budget=0.4), 6),
    (omnidrop.Random(budget=0.4), 6),
    (omnidrop.get_method("random+random@omnidrop", budget=0.5, schedule="step", cache="cut"), 6),
    (omnidrop.get_method("random+random@omnidrop", budget=0.5, schedule="step"), 6),
    (Remembering(), 1),
    (omnidrop.get_method("omnifocus", budget=0.4), 0),
    (omnidrop.get_method("omnifocus+random@omnidrop", budget=0.4), 0),
    (omnidrop.get_method("omniroute", budget=0.5), 0),
    (omnidrop.get_method("random+omnidrop@omnidelta", budget=0.4), 0),
    (omnidrop.get_method("omnipack", budget=0.5), None),
]


def ids(method: object) -> str | None:
    return f"{method.name}-{method.cache}" if isinstance(method, Method) else None


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute short clips separately from the question, too."""
    monkeypatch.setattr(prefill_module, "SPLIT_FROM", 1)


@pytest.fixture(
    scope="module", params=["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def either(request, folder) -> Model:
    return load(LoadOptions(model=str(folder), device="cpu", dtype=request.param, offline=True))


def ask(model: Model, clip: Features, questions: list[str], method: Method) -> list[Answer]:
    with model.features(clip) as session:
        return [session.ask(q, method=method, options=OPTIONS) for q in questions]


def reused_layers(answer: Answer) -> int:
    names = [s.name for s in answer.trace.stages if s.reused and s.name.startswith("prefix")]
    return int(names[0].split()[3]) if names else 0


def until_first_drop(answer: Answer) -> int:
    counts = [len(alive) for alive in answer.trace.survivors]
    return next(layer for layer, count in enumerate(counts) if count < counts[0])


def same(one: Answer, two: Answer) -> None:
    assert one.token_ids == two.token_ids
    assert one.logprobs == two.logprobs
    assert one.trace.survivors == two.trace.survivors
    assert one.trace.chunks == two.trace.chunks
    assert one.trace.memory.kv_cache == two.trace.memory.kv_cache


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(("method", "layers"), every(2, REUSED), ids=ids)
def test_a_second_question_equals_a_fresh_run(
    either: Model, features: Features, method: Method, layers: int | None
) -> None:
    _, second, third = ask(either, features, [FIRST, QUESTION, FIRST], method)
    (fresh,) = ask(either, features, [QUESTION], method)
    (first,) = ask(either, features, [FIRST], method)
    if layers is None:
        layers = until_first_drop(first)
    same(second, fresh)
    same(third, first)
    assert (reused_layers(first), reused_layers(second), reused_layers(third)) == (
        0,
        layers,
        layers,
    )


@pytest.mark.usefixtures("apart")
def test_clip_rows_are_not_computed_twice(
    model: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[tuple[int, int]] = []
    layer = model.adapter.layer

    def counting(index, hidden, rotary, cache):
        rows.append((index, hidden.shape[1]))
        return layer(index, hidden, rotary, cache)

    monkeypatch.setattr(model.adapter, "layer", counting)
    with model.features(features) as session:
        options = GenerateOptions(max_new_tokens=1)
        session.ask(FIRST, method=omnidrop.FastV(budget=0.6), options=options)
        before = len(rows)
        trace = session.ask(QUESTION, method=omnidrop.FastV(budget=0.6), options=options).trace
    again = dict(rows[before:])
    assert all(again[index] < trace.text_tokens for index in (0, 1))
    assert again[2] == trace.text_tokens + trace.kept_per_layer[2]


@pytest.mark.usefixtures("apart")
def test_an_answer_can_continue_while_another_question_uses_the_prefix(
    model: Model, features: Features
) -> None:
    """Neither overwrites the other's keys and values, whichever decodes first."""
    held: list[Prefilled] = []
    with model.features(features) as session:
        one = session.ask(FIRST, method=Method(), options=OPTIONS, on_prefill=held.append)
        two = session.ask(QUESTION, method=Method(), options=OPTIONS, on_prefill=held.append)
        three = session.ask(FIRST, method=Method(), options=OPTIONS)
        assert one.token_ids == three.token_ids
        for prefilled, answer in zip(held, (one, two), strict=True):
            longest = max(prefilled.cache.lengths)
            prefilled.cache.rewind((longest - len(answer.token_ids) + 1,) * LAYERS)
        for prefilled, answer in zip(held, (one, two), strict=True):
            assert generate(model.adapter, prefilled, OPTIONS).ids == answer.token_ids


@pytest.mark.usefixtures("apart")
def test_spare_room_is_shared_once_it_is_free(model: Model, features: Features) -> None:
    with model.features(features) as session:
        session.ask(FIRST, method=Method(), options=OPTIONS)
        gc.collect()
        places = []
        for _ in range(2):
            session.ask(
                QUESTION,
                method=Method(),
                options=OPTIONS,
                on_prefill=lambda p: places.append(p.cache.keys(2).data_ptr()),
            )
        (_, prefix) = session.prefixes._held[0]
        assert places == [prefix.kv[2].keys.data_ptr()] * 2


@pytest.mark.usefixtures("apart")
def test_a_prefix_is_reused_only_if_nothing_it_depends_on_changes(
    model: Model, features: Features
) -> None:
    method = omnidrop.Random(budget=0.4)

    def layers(**changed) -> int:
        with model.features(features) as session:
            session.ask(FIRST, method=method, options=OPTIONS)
            asked = {"method": method, "options": OPTIONS, **changed}
            return reused_layers(session.ask(QUESTION, **asked))

    assert layers() == LAYERS
    assert layers(options=replace(OPTIONS, temperature=1.0)) == LAYERS
    assert layers(options=replace(OPTIONS, seed=4)) == 0
    assert layers(system="Answer in one word.") == 0
    assert layers(method=omnidrop.Random(budget=0.5)) == 0
    assert layers(method=omnidrop.Uniform(budget=0.4)) == 0
    assert layers(reuse=False) == 0


#: Method, and whether its prefix is reused under another seed.
DRAWN: list[tuple[Method, bool]] = [
    (omnidrop.Uniform(budget=0.5), True),
    (omnidrop.OmniDrop(budget=0.5), True),
    (Remembering(), False),
    (Remembering(at_entry=False), True),  # draws only where the question takes part
    (omnidrop.Random(budget=0.5), False),
    (omnidrop.get_method("random+uniform@omnidrop", budget=0.5), False),
    (omnidrop.get_method("none+random@omnidrop", budget=0.5), False),  # for the clip alone
]


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(("method", "known"), DRAWN, ids=ids)
def test_another_seed_reuses_what_was_not_drawn(
    model: Model, features: Features, method: Method, known: bool
) -> None:
    """`omnidrop eval` gives each question a seed of its own."""
    with model.features(features) as session:
        session.ask(FIRST, method=method, options=OPTIONS)
        second = session.ask(QUESTION, method=method, options=replace(OPTIONS, seed=4))
    with model.features(features) as session:
        fresh = session.ask(QUESTION, method=method, options=replace(OPTIONS, seed=4))
    assert bool(reused_layers(second)) is known
    same(second, fresh)


@pytest.mark.usefixtures("apart")
def test_no_prefix_is_kept_if_no_question_follows(model: Model, features: Features) -> None:
    with model.features(features) as session:
        session.reuse = False
        session.ask(FIRST, method=Method(), options=OPTIONS)
        assert len(session.prefixes) == 0


@pytest.mark.usefixtures("apart")
def test_prefixes_are_limited_in_number_and_bytes(model: Model, features: Features) -> None:
    a, b, c = (omnidrop.Uniform(budget=budget) for budget in (0.3, 0.4, 0.5))
    with model.features(features) as session:

        def layers(method: Method) -> int:
            return reused_layers(session.ask(QUESTION, method=method, options=OPTIONS))

        assert [layers(m) for m in (a, b, a, b, c, b, a)] == [0, 0, 6, 6, 0, 6, 0]
        assert 0 < session.prefixes.bytes <= session.prefixes.limit
        session.prefixes.limit = session.prefixes.bytes // 3
        session.prefixes.clear()
        assert [layers(m) for m in (a, a)] == [0, 0]
        assert len(session.prefixes) == 0


@pytest.mark.usefixtures("apart")
def test_prefixes_are_freed_when_memory_runs_out(
    model: Model, features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model.features(features) as session:
        session.ask(FIRST, method=Method(), options=OPTIONS)
        held = []

        def narrow(*args, **kwargs):
            held.append(len(session.prefixes))
            if held[-1]:
                raise MemoryError
            return prefill_module.prefill(*args, **kwargs)

        monkeypatch.setattr(session_module, "prefill", narrow)
        answer = session.ask(QUESTION, method=Method(), options=OPTIONS)
    assert held == [1, 0]
    same(answer, ask(model, features, [QUESTION], Method())[0])


@pytest.mark.usefixtures("apart")
def test_running_the_encoders_again_drops_the_prefixes(model: Model, features: Features) -> None:
    with model.features(features) as session:
        session.ask(FIRST, method=Method(), options=OPTIONS)
        session.encode(video_attention=True)
        assert len(session.prefixes) == 0
        session.ask(FIRST, method=Method(), options=OPTIONS)
        assert len(session.prefixes) == 1
    assert len(session.prefixes) == 0


@pytest.mark.usefixtures("apart")
def test_a_question_free_method_that_reads_the_question_is_an_error(
    model: Model, features: Features
) -> None:
    @dataclass(frozen=True)
    class Peeking(omnidrop.FastV):
        question_free: ClassVar[bool] = True

    with model.features(features) as session, pytest.raises(RuntimeError, match="question-free"):
        session.ask(QUESTION, method=Peeking(budget=0.6))


def test_short_clips_are_computed_together_with_the_question(
    model: Model, features: Features
) -> None:
    _, second = ask(model, features, [FIRST, QUESTION], Method())
    assert reused_layers(second) == 0


@pytest.mark.slow
def test_a_long_clip_is_reused_and_equals_a_fresh_process(folder) -> None:
    """1536 video tokens, compared with a process that answers no other question."""
    code = (
        "import sys, omnidrop\n"
        "from tests.engine.test_prefix import OPTIONS, QUESTION, long_clip, load_again\n"
        "model = load_again(sys.argv[1])\n"
        "answer = model.features(long_clip(model)).ask(\n"
        "    QUESTION, method=omnidrop.FastV(budget=0.6), options=OPTIONS)\n"
        "print(answer.token_ids, answer.logprobs)\n"
    )
    command = [sys.executable, "-c", code, str(folder)]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    model = load_again(str(folder))
    _, second = ask(model, long_clip(model), [FIRST, QUESTION], omnidrop.FastV(budget=0.6))
    assert reused_layers(second) == 2
    assert f"{second.token_ids} {second.logprobs}" == fresh


def long_clip(model: Model) -> Features:
    return make_features((8, 32, 24), 0, model=model)


def load_again(folder: str) -> Model:
    with registered(FAMILY):
        return load(LoadOptions(model=folder, device="cpu", dtype="bfloat16", offline=True))
