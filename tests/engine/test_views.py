"""The views that the engine gives a method, and the selections that a method may return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch

from omnidrop.engine.encode import Features
from omnidrop.engine.model import Model
from omnidrop.pruning.method import Entry, EntryView, Method, MethodState, Mix, Need, Plan
from omnidrop.pruning.methods.uniform import Uniform

QUESTION = "What instrument plays first?"
SECOND = "Which colour is shown last?"


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
        clip.ask(QUESTION, method=Reading())
    ids = torch.tensor(model.adapter.text.encode(QUESTION)[0])
    assert len(Reading.seen) == model.info.text.layers - 1
    for embeds in Reading.seen:
        assert torch.equal(embeds, model.adapter.embed(ids))


@dataclass(frozen=True)
class Asking(Uniform):
    """Reads what a method may ask for at entry."""

    name: ClassVar[str] = "asking"
    wants: ClassVar[frozenset[str]] = frozenset({Need.QUESTION})
    phrases: ClassVar[tuple[str, ...]] = ("a bell rings", "red")
    question_free: ClassVar[bool] = False
    seen: ClassVar[list[EntryView]] = []

    def enter(self, view, plan):
        self.seen.append(view)
        return super().enter(view, plan)


@dataclass(frozen=True)
class Silent(Asking):
    """Asks for nothing."""

    wants: ClassVar[frozenset[str]] = frozenset()
    phrases: ClassVar[tuple[str, ...]] = ()


def test_a_method_gets_the_embeddings_of_question_and_phrases_it_asks_for(
    model: Model, features: Features
) -> None:
    def embed(text: str) -> torch.Tensor:
        return model.adapter.embed(torch.tensor(model.adapter.text.encode(text)[0]))

    Asking.seen.clear()
    with model.features(features) as clip:
        for question in (QUESTION, SECOND, QUESTION):
            clip.ask(question, method=Asking(budget=0.5))
        clip.ask(QUESTION, method=Silent(budget=0.5))
    *asked, silent = Asking.seen
    for question, view in zip((QUESTION, SECOND), asked, strict=False):
        assert view.question_embeds is not None
        assert torch.equal(view.question_embeds, embed(question))
        assert view.question_embeds.dtype == view.embeds.dtype
        assert len(view.phrase_embeds) == 2
        assert all(map(torch.equal, view.phrase_embeds, map(embed, Asking.phrases)))
    assert silent.question_embeds is None
    assert silent.phrase_embeds == ()


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
        trace = clip.ask(QUESTION, method=Halving()).trace
    half = -(-trace.av_tokens // 2)
    assert trace.kept_per_layer == (trace.av_tokens, *(half,) * (trace.layers - 1))
    assert trace.realised_budget == pytest.approx(
        (1 + (trace.layers - 1) * half / trace.av_tokens) / trace.layers
    )


def test_merged_states_enter_the_next_layer(model: Model, features: Features) -> None:
    with model.features(features) as clip:
        plain = clip.ask(QUESTION, method=Halving())
        merged = clip.ask(QUESTION, method=Halving(merge=True))
    assert merged.trace.kept_per_layer == plain.trace.kept_per_layer
    assert merged.token_ids != plain.token_ids
