"""The views that the engine gives a method, and the selections that a method may return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch

from omnidrop.engine import prefill as prefill_module
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.pruning.method import Entry, EntryView, Method, MethodState, Mix, Need, Plan

QUESTION = "What instrument plays first?"
SHORT = GenerateOptions(max_new_tokens=8)


@dataclass
class Asked(MethodState):
    """The layers whose views were read."""

    layers: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Looking(Method):
    """Keeps everything, and reads everything."""

    name: ClassVar[str] = "looking"
    wants: ClassVar[frozenset[str]] = frozenset({Need.VIDEO_ATTENTION})

    def plan(self, tokens, layers):
        return Plan(len(tokens), (len(tokens),) * layers, adaptive=True)

    def start(self, plan):
        return Asked()

    def enter(self, view, plan):
        assert view.video_attention is not None
        assert len(view.video_attention) == int(view.tokens.video.sum())
        return Entry(torch.arange(len(view.tokens)))

    def keep(self, view, count):
        n = len(view.tokens)
        for rows in ("question", "last", "all-text"):
            each = view.row_attention(rows)
            torch.testing.assert_close(each.mean(0), view.attention(rows))
        view.state.layers.append(view.layer)
        self.seen.append(list(view.state.layers))
        return torch.arange(n)

    seen: ClassVar[list[list[int]]] = []


@dataclass(frozen=True)
class Halving(Method):
    """An adaptive method: keeps half of the tokens after layer 0, and may merge the others."""

    name: ClassVar[str] = "halving"
    merge: bool = False

    def plan(self, tokens, layers):
        return Plan(len(tokens), (len(tokens),) * layers, adaptive=True)

    def keep(self, view, count):
        n = len(view.tokens)
        if view.layer:
            return torch.arange(n)
        index = torch.arange(0, n, 2)
        if not self.merge:
            return index
        places = torch.arange(len(index)).repeat_interleave(n)
        return Entry(
            index, Mix(places, torch.arange(n).repeat(len(index)), torch.ones(n * len(index)))
        )


def test_a_method_can_read_everything_in_the_contract(model: Model, features: Features) -> None:
    Looking.seen.clear()
    with model.features(features) as clip:
        looked = clip.ask(QUESTION, method=Looking())
        plain = clip.ask(QUESTION, method=Method())
    assert looked.token_ids == plain.token_ids
    layers = model.info.text.layers
    assert Looking.seen[-1] == list(range(layers - 1))


@dataclass(frozen=True)
class Reading(Method):
    """Keeps everything, and reads the question's embeddings after every layer."""

    name: ClassVar[str] = "reading"
    seen: ClassVar[list[torch.Tensor]] = []

    def plan(self, tokens, layers):
        return Plan(len(tokens), (len(tokens),) * layers, adaptive=True)

    def keep(self, view, count):
        self.seen.append(view.text_embeds("question"))
        assert len(self.seen[-1]) == len(view.row_attention("question"))
        return torch.arange(len(view.tokens))


def test_the_questions_embeddings_can_be_read_after_every_layer(
    model: Model, features: Features
) -> None:
    Reading.seen.clear()
    with model.features(features) as clip:
        clip.ask(QUESTION, method=Reading(), options=SHORT)
    ids = torch.tensor(model.adapter.text.encode(QUESTION)[0])
    assert len(Reading.seen) == model.info.text.layers - 1
    for embeds in Reading.seen:
        assert torch.equal(embeds, model.adapter.embed(ids))


@dataclass(frozen=True)
class Naming(Method):
    """Keeps everything, and names phrases of its own."""

    name: ClassVar[str] = "naming"
    phrases: ClassVar[tuple[str, ...]] = ("a bell rings", "red")
    seen: ClassVar[list[EntryView]] = []

    def enter(self, view, plan):
        self.seen.append(view)
        return super().enter(view, plan)


def test_a_method_gets_the_embeddings_of_the_phrases_it_names(
    model: Model, features: Features
) -> None:
    Naming.seen.clear()
    with model.features(features) as clip:
        clip.ask(QUESTION, method=Naming(), options=SHORT)
    (view,) = Naming.seen
    ids = [torch.tensor(model.adapter.text.encode(phrase)[0]) for phrase in Naming.phrases]
    assert len(ids[0]) != len(ids[1])
    assert len(view.phrase_embeds) == 2
    assert all(map(torch.equal, view.phrase_embeds, map(model.adapter.embed, ids)))
    assert view.phrase_embeds[0].dtype == view.embeds.dtype
    assert view.question_embeds is None


@dataclass(frozen=True)
class Asking(Method):
    """Keeps everything, and notes the question that it is told before the first layer."""

    name: ClassVar[str] = "asking"
    wants: ClassVar[frozenset[str]] = frozenset({Need.QUESTION})
    seen: ClassVar[list[torch.Tensor]] = []

    def enter(self, view, plan):
        self.seen.append(view.question_embeds)
        return super().enter(view, plan)


def test_the_question_is_known_at_entry_to_a_method_that_wants_it(
    model: Model, features: Features
) -> None:
    Asking.seen.clear()
    questions = [QUESTION, "Is there a drum?", QUESTION]
    with model.features(features) as clip:
        for question in questions:
            clip.ask(question, method=Asking(), options=SHORT)
        assert not len(clip.prefixes)
    for question, told in zip(questions, Asking.seen, strict=True):
        ids = torch.tensor(model.adapter.text.encode(question)[0])
        assert torch.equal(told, model.adapter.embed(ids))


@dataclass(frozen=True)
class Untold(Method):
    """Does not want the question."""

    name: ClassVar[str] = "untold"

    def enter(self, view, plan):
        assert view.question_embeds is None
        assert view.phrase_embeds == ()
        return super().enter(view, plan)


def test_no_other_method_is_told_the_question(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        clip.ask(QUESTION, method=Untold(), options=SHORT)


@dataclass(frozen=True)
class Following(Method):
    """Keeps everything, and notes the states of text rows after every layer."""

    name: ClassVar[str] = "following"
    #: Output of each layer; and after each, that output and the states of question and last row.
    left: ClassVar[dict[int, torch.Tensor]] = {}
    seen: ClassVar[list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = []

    def plan(self, tokens, layers):
        return Plan(len(tokens), (len(tokens),) * layers, adaptive=True)

    def keep(self, view, count):
        found = (view.text_hidden(rows) for rows in ("question", "last"))
        self.seen.append((self.left[view.layer], *found))
        return torch.arange(len(view.tokens))


@pytest.mark.parametrize("split_from", [1, 512], ids=["apart", "together"])
def test_the_states_of_the_text_are_those_that_left_the_layer(
    model: Model, features: Features, monkeypatch: pytest.MonkeyPatch, split_from: int
) -> None:
    left = Following.left
    left.clear()
    layer = model.adapter.layer

    def noting(index, hidden, rotary, cache):
        out = layer(index, hidden, rotary, cache)
        left[index] = out[0] if index not in left else torch.cat((left[index], out[0]))
        return out

    monkeypatch.setattr(prefill_module, "SPLIT_FROM", split_from)
    monkeypatch.setattr(model.adapter, "layer", noting)
    Following.seen.clear()
    with model.features(features) as clip:
        clip.ask(QUESTION, method=Following(), options=GenerateOptions(max_new_tokens=1))
    words = model.adapter.embed(torch.tensor(model.adapter.text.encode(QUESTION)[0]))
    assert len(Following.seen) == model.info.text.layers - 1
    for rows, asked, last in Following.seen:
        assert asked.shape == words.shape
        assert torch.equal(last, rows[-1:])
        begins = _start_of(rows, asked)
        assert begins is not None
        assert 0 < len(rows) - begins - len(words) < 12, "the end of the template follows"


def _start_of(rows: torch.Tensor, run: torch.Tensor) -> int | None:
    """Return where `run` stands in `rows`."""
    for start in range(len(rows) - len(run) + 1):
        if torch.equal(rows[start : start + len(run)], run):
            return start
    return None


def test_encoders_run_again_if_a_later_method_needs_their_attention(
    model: Model, features: Features
) -> None:
    with model.features(features) as clip:
        first = clip.encode()
        assert first.video_attention is None
        second = clip.encode(video_attention=True)
        assert second.video_attention is not None
        assert clip.encode() is second
        torch.testing.assert_close(first.video, second.video)


def test_an_adaptive_method_decides_how_many_stay(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        trace = clip.ask(QUESTION, method=Halving(), options=SHORT).trace
    half = -(-trace.av_tokens // 2)
    assert trace.kept_per_layer == (trace.av_tokens, *(half,) * (trace.layers - 1))
    assert trace.realised_budget == pytest.approx(
        (1 + (trace.layers - 1) * half / trace.av_tokens) / trace.layers
    )


def test_merged_states_enter_the_next_layer(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        plain = clip.ask(QUESTION, method=Halving(), options=SHORT)
        merged = clip.ask(QUESTION, method=Halving(merge=True), options=SHORT)
    assert merged.trace.kept_per_layer == plain.trace.kept_per_layer
    assert merged.token_ids != plain.token_ids
