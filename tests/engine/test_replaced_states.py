"""Methods that compute states themselves: the layer loop against a plain loop, reuse, the text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from omnidrop.engine import prefill as prefill_module
from omnidrop.engine.cache import KVCache
from omnidrop.engine.encode import Encoded, Features
from omnidrop.engine.model import Model
from omnidrop.engine.prefill import prefill
from omnidrop.engine.prefix import Prefixes
from omnidrop.engine.timing import Meter
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Entry, LayerMethod, Mix, Need, Plan
from omnidrop.tokens import Prompt

QUESTION = "What instrument plays first?"
OTHER = "Who is on screen then, and what is heard when the red square moves?"


def rewritten(rows: torch.Tensor) -> torch.Tensor:
    """What a method makes of states: double precision, which the engine must bring back."""
    return (0.5 * rows + 0.1 * rows.roll(1, 0)).double()


@dataclass(frozen=True)
class Rewriting(LayerMethod):
    """Keeps two of three tokens at entry and after layer 1, and rewrites them."""

    name: ClassVar[str] = "rewriting"
    question_free: ClassVar[bool] = True

    def plan(self, tokens, layers):
        return Plan(len(tokens), (len(tokens),) * layers, adaptive=True)

    def enter(self, view, plan):
        return self.chosen(view.embeds)

    def keep(self, view, count):
        rows = view.hidden()
        return self.chosen(rows) if view.layer == 1 else torch.arange(len(rows))

    @staticmethod
    def chosen(rows: torch.Tensor) -> Entry:
        keep = torch.tensor([i for i in range(len(rows)) if i % 3])
        return Entry(keep, states=rewritten(rows[keep]))


@dataclass(frozen=True)
class Reading(Rewriting):
    """The same, but the question takes part after layer 1."""

    question_free: ClassVar[bool] = False


@dataclass(frozen=True)
class Retelling(Rewriting):
    """Rewrites the text as well, which takes the whole prompt."""

    wants: ClassVar[frozenset[str]] = frozenset({Need.PROMPT})
    question_free: ClassVar[bool] = False
    seen: ClassVar[list[Any]] = []

    def enter(self, view, plan):
        self.seen.append(view)
        rows = view.prompt.embeds[view.prompt.text]
        return replace(super().enter(view, plan), text=rewritten(rows))


@torch.inference_mode()
def plain(model: Model, prompt: Prompt, planes: tuple[torch.Tensor, ...], *, text: bool):
    """Run all rows alive in one block per layer; return the logits and the survivors."""
    adapter, layers = model.adapter, model.info.text.layers
    av = torch.nonzero(prompt.tokens.av).squeeze(1)
    other = torch.nonzero(~prompt.tokens.av).squeeze(1)
    own, *left = planes
    words = adapter.embed(prompt.ids[other])
    words = rewritten(words).to(words) if text else words

    def dropped(rows):
        keep = torch.tensor([i for i in range(len(rows)) if i % 3])
        return keep, rewritten(rows[keep]).to(rows)

    keep, own = dropped(own)
    av, left = av[keep], [plane[keep] for plane in left]
    alive, order = torch.cat((other, av)).sort()
    hidden, cache, survivors = torch.cat((words, own))[order], KVCache(layers), []
    for layer in range(layers):
        survivors.append(av)
        rotary = adapter.rotary(prompt.positions[:, alive])
        hidden = adapter.layer(layer, hidden[None], rotary, cache)[0]
        if layer == layers - 1:
            break
        places = torch.searchsorted(alive, av)
        if left:
            hidden[places] += left.pop(0)
        if layer == 1:
            keep, states = dropped(hidden[places])
            stay = torch.cat((torch.searchsorted(alive, other), places[keep])).sort().values
            av, left = av[keep], [plane[keep] for plane in left]
            alive, hidden = alive[stay], hidden[stay]
            hidden[torch.searchsorted(alive, av)] = states
    return adapter.logits(hidden[None, -1:]), survivors


@pytest.fixture(scope="module")
def encoded(model: Model, features: Features) -> Encoded:
    with model.features(features) as session:
        return session.encode()


def run(model, encoded, question, method, prefixes=None):
    adapter = model.adapter
    prompt = build_prompt(adapter.text, adapter.template, question, encoded.media)
    meter = Meter(adapter.device)
    return prompt, prefill(adapter, prompt, encoded, method, meter, prefixes=prefixes)


@pytest.mark.parametrize("method", [Rewriting(), Reading(), Reading(cache="cut"), Retelling()])
@pytest.mark.parametrize("planes", [0, 2])
@pytest.mark.parametrize("apart", [False, True])
def test_the_layer_loop_computes_what_a_plain_loop_does(
    model, encoded, method, planes, apart, monkeypatch
) -> None:
    monkeypatch.setattr(prefill_module, "SPLIT_FROM", 1 if apart else 10**9)
    own = encoded.planes[0]
    draw = torch.Generator().manual_seed(0)
    more = [torch.randn(own.shape, generator=draw) * own.std() for _ in range(planes)]
    encoded = replace(encoded, planes=(own, *more))
    prefixes = Prefixes()
    for question in (OTHER, QUESTION):
        prompt, found = run(model, encoded, question, method, prefixes)
        shown = encoded.in_prompt_order(prompt.tokens.video[prompt.tokens.av])
        logits, survivors = plain(model, prompt, shown, text=isinstance(method, Retelling))
        assert all(map(torch.equal, found.survivors, survivors))
        torch.testing.assert_close(found.logits, logits, atol=2e-4, rtol=1e-3)
    reused = {Rewriting: model.info.text.layers, Reading: 1, Retelling: 0}
    layers = found.reused if apart else 0
    assert layers == (reused[type(method)] if apart else 0)
    if apart:
        _, fresh = run(model, encoded, QUESTION, method)
        torch.testing.assert_close(found.logits, fresh.logits, atol=2e-4, rtol=1e-3)


def test_the_whole_prompt_is_what_would_enter(model, encoded) -> None:
    Retelling.seen.clear()
    prompt, _ = run(model, encoded, QUESTION, Retelling())
    (view,) = Retelling.seen
    whole, av = view.prompt, prompt.tokens.av
    assert whole.av.tolist() == torch.nonzero(av).squeeze(1).tolist()
    assert whole.text.tolist() == torch.nonzero(~av).squeeze(1).tolist()
    assert torch.equal(whole.positions, prompt.positions)
    assert torch.equal(whole.embeds[whole.av], view.embeds)
    assert torch.equal(whole.embeds[whole.text], model.adapter.embed(prompt.ids[~av]))


def test_an_entry_has_states_or_a_mix() -> None:
    keep = torch.tensor([0])
    mix = Mix(keep, keep, torch.ones(1))
    with pytest.raises(ValueError, match="no mix"):
        Entry(keep, mix, states=torch.zeros(1, 2))
    entry = Entry(keep, states=torch.ones(1, 2).double())
    carried = entry.carry(torch.zeros(3, 2))
    assert carried.dtype == torch.float32
    assert carried.tolist() == [[1, 1]]
    assert entry.take(torch.zeros(3, 2)).tolist() == [[0, 0]]
