"""One clip, many questions: accounting, equality with an unpruned run, choices, streaming."""

from __future__ import annotations

import pytest

import omnidrop
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.errors import BudgetError, UsageError
from omnidrop.pruning.method import Method
from tests.tiny import make_features

QUESTION = "What instrument plays first?"
SHORT = GenerateOptions(max_new_tokens=8, survivors=True, logprobs=True)

METHODS = [
    Method(),
    omnidrop.OmniDrop(budget=0.3),
    omnidrop.OmniDrop(budget=0.3, cache="cut"),
    omnidrop.get_method("none+omnidrop", budget=0.5, rows="last", diversity=0.0),
    omnidrop.Random(budget=0.4),
    omnidrop.Uniform(budget=0.4),
    omnidrop.FastV(budget=0.6),
]


def ids(method: Method) -> str:
    return f"{method.name}-{method.budget}-{method.cache}"


@pytest.mark.parametrize("method", METHODS, ids=ids)
def test_trace_accounts_for_every_token(model: Model, features: Features, method: Method) -> None:
    with model.features(features) as clip:
        trace = clip.ask(QUESTION, method=method, options=SHORT).trace
    assert trace.layers == 6
    assert trace.audio_tokens == model.adapter.template.audio_tokens(410)
    assert trace.audio_tokens + trace.video_tokens == trace.av_tokens == trace.audio_tokens + 48
    assert trace.kept_per_layer == trace.planned
    assert abs(trace.realised_budget - method.budget) <= 0.01
    assert trace.realised_budget == pytest.approx(sum(trace.kept_per_layer) / 6 / trace.av_tokens)
    for layer in range(6):
        assert sum(c.audio[layer] for c in trace.chunks) == trace.kept_audio[layer]
        assert sum(c.video[layer] for c in trace.chunks) == trace.kept_video[layer]
    assert sum(c.audio_total + c.video_total for c in trace.chunks) == trace.av_tokens
    assert sum(c.relevance or 0 for c in trace.chunks) == pytest.approx(1.0)
    for upper, lower in zip(trace.survivors, trace.survivors[1:], strict=False):
        assert set(lower) <= set(upper)
        assert list(lower) == sorted(set(lower))
    assert trace.flops_prefill <= trace.flops_prefill_unpruned
    assert trace.memory.kv_cache <= trace.memory.kv_cache_unpruned


def test_the_time_of_loading_is_told_and_not_counted(model: Model, features: Features) -> None:
    assert model.adapter.load_seconds > 0
    for _ in range(2):
        with model.features(features) as clip:
            trace = clip.ask(QUESTION, options=SHORT).trace
        assert trace.load_seconds == model.adapter.load_seconds
        assert "load" not in [stage.name for stage in trace.stages]


def test_budget_one_equals_unpruned(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        full = clip.ask(QUESTION, method=Method(), options=SHORT)
        one = clip.ask(QUESTION, method=omnidrop.OmniDrop(budget=1.0), options=SHORT)
    assert full.token_ids == one.token_ids
    assert full.logprobs == one.logprobs


def test_second_question_reuses_the_embeddings_and_equals_a_fresh_run(
    model: Model, features: Features
) -> None:
    with model.features(features) as clip:
        clip.ask("Who is there?", options=SHORT)
        second = clip.ask(QUESTION, options=SHORT)
    with model.features(features) as clip:
        fresh = clip.ask(QUESTION, options=SHORT)
    assert second.token_ids == fresh.token_ids
    assert second.logprobs == fresh.logprobs
    assert {s.name for s in second.trace.stages if s.reused} == {"vision tower", "audio tower"}
    assert not any(s.reused for s in fresh.trace.stages)


def test_cutting_earlier_caches_saves_memory(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        own = clip.ask(QUESTION, method=omnidrop.OmniDrop(budget=0.3, cache="own"), options=SHORT)
        cut = clip.ask(QUESTION, method=omnidrop.OmniDrop(budget=0.3, cache="cut"), options=SHORT)
    assert cut.trace.memory.kv_cache < own.trace.memory.kv_cache
    assert cut.trace.kept_per_layer == own.trace.kept_per_layer


@pytest.mark.parametrize(
    ("grid", "mel_frames"),
    [(None, 410), ((4, 8, 6), 0), (None, 0), ((2, 4, 4), 4), ((1, 4, 4), 3000)],
    ids=["audio only", "video only", "no media", "a few tokens", "audio longer than video"],
)
def test_every_mix_of_modalities_is_answered(
    model: Model, grid: tuple[int, int, int] | None, mel_frames: int
) -> None:
    with model.features(make_features(grid, mel_frames, model=model)) as clip:
        pruned = clip.ask(QUESTION, method=omnidrop.OmniDrop(budget=0.5), options=SHORT)
        full = clip.ask(QUESTION, method=Method(), options=SHORT)
    assert pruned.trace.av_tokens == full.trace.av_tokens
    assert abs(pruned.trace.realised_budget - 0.5) <= 0.01 or not pruned.trace.av_tokens
    assert full.trace.realised_budget == 1.0


def test_streamed_pieces_are_the_answer(model: Model, features: Features) -> None:
    pieces: list[str] = []
    with model.features(features) as clip:
        answer = clip.ask(QUESTION, options=SHORT, on_text=pieces.append)
    assert "".join(pieces) == answer.text
    assert len(answer.logprobs) == len(answer.token_ids)
    assert answer.stop in ("stop token", "max new tokens")


def test_choices_are_scored_as_whole_answers(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        answer = clip.ask(QUESTION, choices=["piano", "a long guitar", "no"])
        again = clip.ask(QUESTION, choices=["no", "piano", "a long guitar"])
    assert answer.text == answer.choices[0].text
    assert sum(c.probability for c in answer.choices) == pytest.approx(1.0)
    logprobs = [c.logprob for c in answer.choices]
    assert logprobs == sorted(logprobs, reverse=True)
    assert {c.text: pytest.approx(c.logprob, abs=1e-4) for c in answer.choices} == {
        c.text: c.logprob for c in again.choices
    }


@pytest.mark.parametrize("choices", [["one"], ["a", "a"], ["a", " "], ["a", "b", "a "]])
def test_equal_or_empty_choices_are_refused(
    model: Model, features: Features, choices: list[str]
) -> None:
    with model.features(features) as clip, pytest.raises(UsageError, match="different texts"):
        clip.ask(QUESTION, choices=choices)


def test_sampling_repeats_under_a_seed(model: Model, features: Features) -> None:
    options = GenerateOptions(max_new_tokens=12, temperature=1.5, top_p=0.95, seed=7)
    with model.features(features) as clip:
        first = clip.ask(QUESTION, options=options)
        second = clip.ask(QUESTION, options=options)
        other = clip.ask(QUESTION, options=GenerateOptions(max_new_tokens=12, temperature=1.5))
    assert first.token_ids == second.token_ids
    assert first.token_ids != other.token_ids


def test_random_follows_the_seed(model: Model, features: Features) -> None:
    def survivors(seed: int) -> tuple[tuple[int, ...], ...]:
        options = GenerateOptions(max_new_tokens=1, survivors=True, seed=seed)
        with model.features(features) as clip:
            answer = clip.ask(QUESTION, method=omnidrop.Random(budget=0.3), options=options)
        return answer.trace.survivors

    assert survivors(1) == survivors(1)
    assert survivors(1) != survivors(2)


def test_a_budget_out_of_reach_is_refused_with_the_range(model: Model, features: Features) -> None:
    with model.features(features) as clip, pytest.raises(BudgetError) as caught:
        clip.ask(QUESTION, method=omnidrop.FastV(budget=0.05))
    assert caught.value.reachable is not None
    low, _ = caught.value.reachable
    with model.features(features) as clip:
        trace = clip.ask(QUESTION, method=omnidrop.FastV(budget=low + 0.005), options=SHORT).trace
    assert abs(trace.realised_budget - low) <= 0.015


def test_unknown_settings_are_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="frames_per_second"):
        model.open("clip.mp4", frames_per_second=2)
    with pytest.raises(UsageError, match="colour"):
        omnidrop.load("demo", colour="red")


def test_an_empty_question_is_refused(model: Model, features: Features) -> None:
    with model.features(features) as clip, pytest.raises(UsageError, match="empty"):
        clip.ask("  ")
