"""Where an answer came from: attention to shares, shares to moments, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import omnidrop
from omnidrop.engine import prefill as prefill_module
from omnidrop.engine.encode import Features
from omnidrop.engine.evidence import chunk_shares, moments, token_shares
from omnidrop.engine.model import Model
from omnidrop.engine.timing import Meter
from omnidrop.evidence import EvidenceReading, Rate
from omnidrop.options import GenerateOptions
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.report.trace import Answer, Moment

QUESTION = "What instrument plays first?"
OPTIONS = GenerateOptions(max_new_tokens=4, logprobs=True)
METHODS = [
    Method(),
    omnidrop.OmniDrop(budget=0.5),
    omnidrop.Uniform(budget=0.4),
    omnidrop.OmniDropAuto(budget=0.4),
]


def spans(count: int) -> list[tuple[float, float]]:
    return [(2.0 * i, 2.0 * i + 2) for i in range(count)]


def test_shares_are_those_of_the_heads_that_count() -> None:
    attention = torch.tensor([[0.1, 0.3], [0.2, 0.0], [0.9, 0.9]])
    torch.testing.assert_close(token_shares(attention, (0, 1)), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(token_shares(attention, (1,)), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(token_shares(attention), torch.tensor([1.2, 1.2]) / 2.4)


def test_what_a_neutral_row_pays_is_subtracted() -> None:
    sink, asked = torch.tensor([[0.6, 0.1, 0.1]]), torch.tensor([[0.3, 0.0, 0.1]])
    wanted = (asked[0] / 0.4 - sink[0] / 0.8).clamp_min(0)
    torch.testing.assert_close(token_shares(asked, (), sink), wanted / wanted.sum())
    assert float(token_shares(sink, (), sink).sum()) == 0


def test_a_chunk_has_the_scores_of_its_tokens() -> None:
    chunk = torch.tensor([-1, 0, 0, 0, 1, 2], dtype=torch.int32)
    scores = torch.tensor([9.0, 1.0, 1.0, 0.0, 2.0, 0.0])
    assert chunk_shares(scores, chunk, 3) == pytest.approx((0.5, 0.5, 0))
    assert chunk_shares(scores, chunk, 3, per_token=True) == pytest.approx((1 / 3, 2 / 3, 0))
    assert chunk_shares(torch.zeros(6), chunk, 3) is None


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ([0.1, 0.7, 0.2, 0.0], [(2, 4, 0.7)]),
        ([0.4, 0.3, 0.2, 0.1], [(0, 6, 0.9)]),  # grows while half as strong as the strongest
        ([0.5, 0.0, 0.1, 0.4], [(0, 2, 0.5), (6, 8, 0.4)]),
        ([0.3, 0.3, 0.0, 0.4], [(0, 4, 0.6), (6, 8, 0.4)]),  # the strongest first
        ([0.25, 0.25, 0.25, 0.25], []),  # the whole clip says nothing
        ([1.0], []),
        ([], []),
        ([0.0, 0.0], []),
    ],
)
def test_moments_are_the_strong_parts(shares, found) -> None:
    got = moments(spans(len(shares)), shares)
    assert [(m.start, m.end, pytest.approx(m.share)) for m in got] == found


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30).filter(lambda values: sum(values) > 0))
def test_moments_are_apart_and_in_order_of_share(values: list[float]) -> None:
    shares = [value / sum(values) for value in values]
    found = moments(spans(len(shares)), shares)
    assert len(found) <= 3
    assert [m.share for m in found] == sorted((m.share for m in found), reverse=True)
    inside = [sum(m.start <= start < m.end for m in found) for start, _ in spans(len(shares))]
    assert max(inside) <= 1
    for moment in found:
        held = [s for s, (start, _) in zip(shares, spans(len(shares)), strict=True)
                if moment.start <= start < moment.end]  # fmt: skip
        assert moment.share == pytest.approx(sum(held))
        assert len(held) < len(shares)
    if found:
        peaks = [(m.start, m.end) for m in found]
        place = 2.0 * shares.index(max(shares))
        assert any(start <= place < end for start, end in peaks)


def test_there_are_three_moments_at_most() -> None:
    shares = [0.2, 0.0] * 5
    assert len(moments(spans(10), shares)) == 3


@pytest.mark.parametrize("place", range(5))
def test_planted_evidence_is_found(place: int) -> None:
    """Keys of one chunk's tokens point where the last row's query of one head looks."""
    from omnidrop.pruning.parts.relevance import head_relevance

    draw = torch.Generator().manual_seed(place)
    chunk = torch.arange(50) // 10
    keys = torch.randn(1, 53, 16, generator=draw)
    queries = torch.randn(2, 1, 16, generator=draw)
    keys[0, :50][chunk == place] += 1.5 * queries[1]
    seen = head_relevance(queries, keys, torch.tensor([52]), slice(0, 50), 0.25)
    shares = chunk_shares(token_shares(seen, (1,)), chunk, 5)
    assert shares is not None
    assert moments(spans(5), shares)[0] == Moment(2.0 * place, 2.0 * place + 2, shares[place])


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("rows", ["last", "question"])
def test_the_shares_are_those_of_the_cache(model, features, method, rows) -> None:
    """Against a loop over heads and rows: queries of the states that entered, cached keys."""
    adapter, layer, heads = model.adapter, 2, (0, 1)
    queries, last = adapter.queries, {}

    def noted(index, hidden, rotary):
        found = queries(index, hidden, rotary)
        last.setdefault(index, found)  # the reading asks before the method does
        return found

    with model.features(features) as session:
        encoded = session.encode()
    prompt = build_prompt(adapter.text, adapter.template, QUESTION, encoded.media)
    reading = EvidenceReading((layer,), rows, heads)
    adapter.queries = noted  # type: ignore[method-assign]
    try:
        got = prefill_module.prefill(
            adapter, prompt, encoded, method, Meter(adapter.device), reading=reading
        )
    finally:
        del adapter.queries
    keys, alive = got.cache.keys(layer)[0].double(), len(got.survivors[layer])
    asking = torch.nonzero(prompt.tokens.question).squeeze(1)
    places = [len(prompt) - 1] if rows == "last" else asking.tolist()
    av = torch.nonzero(prompt.tokens.av).squeeze(1)
    text_before = int((~prompt.tokens.av[: int(av[0])]).sum())
    total = torch.zeros(alive, dtype=torch.float64)
    for i, place in enumerate(places):
        row = keys.shape[1] - (len(prompt) - place)  # of the rows alive; the end is always there
        for head in heads:
            group = head // (last[layer].shape[0] // keys.shape[0])
            score = keys[group] @ last[layer][head, i].double() * adapter.scaling
            weights = score[: row + 1].softmax(0)
            total += weights[text_before : text_before + alive]
    wanted = torch.zeros(len(prompt))
    wanted[got.survivors[layer]] = (total / total.sum()).float()
    assert got.relevance is not None
    torch.testing.assert_close(got.relevance, wanted, atol=1e-5, rtol=1e-4)


def ask(model: Model, clip: Features, method: Method, reading: EvidenceReading | None) -> Answer:
    chosen = model if reading is None else model.with_reading(reading)
    with chosen.features(clip) as session:
        return session.ask(QUESTION, method=method, options=OPTIONS)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("correction", ["none", "neutral", "per token"])
def test_an_answer_does_not_depend_on_the_reading(model, features, method, correction) -> None:
    reading = EvidenceReading((1, 3), "last", (0,), correction)
    plain, read = ask(model, features, method, None), ask(model, features, method, reading)
    assert plain.token_ids == read.token_ids
    assert plain.logprobs == read.logprobs
    assert plain.trace.kept_per_layer == read.trace.kept_per_layer
    shares = [chunk.relevance for chunk in read.trace.chunks]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= 0


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_moments_come_with_a_measured_rate(model, features, method) -> None:
    rates = (Rate(method.name, method.budget, 100, 90, 0.8, 0.95, 0.5),)
    reading = EvidenceReading((1,), "last", (0,), rates=rates)
    assert ask(model, features, method, replace(reading, rates=())).trace.moments == ()
    trace = ask(model, features, method, reading).trace
    places = [(chunk.start, chunk.end) for chunk in trace.chunks]
    assert trace.moments == moments(places, [chunk.relevance for chunk in trace.chunks])
    assert trace.evidence["rate"]["hits"] == 90
    assert (trace.evidence["layers"], trace.evidence["heads"]) == ((1,), (0,))
    low = replace(reading, rates=(replace(rates[0], chance=0.8),))
    assert ask(model, features, method, low).trace.moments == ()


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
@pytest.mark.parametrize("rows", [pytest.param("last", marks=pytest.mark.slow), "question"])
def test_a_later_question_reads_the_same(model, features, method, rows, monkeypatch) -> None:
    """With the clip's first layers reused, and for choices."""
    monkeypatch.setattr(prefill_module, "SPLIT_FROM", 1)
    reading = EvidenceReading((1, 4), rows, (0,), "neutral")
    with model.with_reading(reading).features(features) as session:
        session.ask("Who is there?", method=method, options=OPTIONS)
        later = session.ask(QUESTION, method=method, options=OPTIONS)
        chosen = session.ask(QUESTION, method=method, choices=("piano", "flute"))
    alone = ask(model, features, method, reading)
    wanted = [chunk.relevance for chunk in alone.trace.chunks]
    for answer in (later, chosen):
        assert [c.relevance for c in answer.trace.chunks] == pytest.approx(wanted, abs=1e-5)


def test_layers_without_a_token_read_nothing(model, features) -> None:
    last = model.info.text.layers - 1
    method = omnidrop.OmniDropAuto(budget=0.3, free=2)
    trace = ask(model, features, method, EvidenceReading((last,), "last")).trace
    assert [chunk.relevance for chunk in trace.chunks] == [None] * len(trace.chunks)
    assert trace.moments == ()


def test_a_method_that_kept_less_than_its_budget_is_judged_by_what_it_kept(model, features):
    """`keep_mass` keeps fewer tokens; nothing was measured with so few."""
    method = omnidrop.OmniDropAuto(budget=0.4, keep_mass=0.05)
    rates = (Rate(method.name, 0.4, 100, 90, 0.8, 0.95, 0.5),)
    reading = EvidenceReading((1,), "last", (0,), rates=rates)
    trace = ask(model, features, method, reading).trace
    assert trace.realised_budget < 0.3
    assert trace.evidence["rate"] is None
    assert trace.moments == ()
