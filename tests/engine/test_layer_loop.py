"""The layer loop against a plain loop: survivors, merging, planes; whole, split and resumed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnidrop.engine import prefill as prefill_module
from omnidrop.engine.cache import KVCache
from omnidrop.engine.encode import Encoded, Features
from omnidrop.engine.model import Model
from omnidrop.engine.prefill import Prefilled, prefill
from omnidrop.engine.prefix import Prefix, Prefixes
from omnidrop.engine.timing import Meter
from omnidrop.models.adapter import Adapter
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Entry, LayerMethod, Method, MethodState, Mix, Plan
from omnidrop.tokens import Prompt

QUESTION = "What instrument plays first?"
OTHER = "Who is on screen then, and what is heard when the red square moves?"

#: The strategies below draw only seeds and flags; model and clip are shared.
MODEL_SHARED = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def with_planes(encoded: Encoded, more: int, seed: int = 0) -> Encoded:
    """Add `more` random planes after the first, of the same size."""
    own = encoded.planes[0]
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(own.shape, generator=generator) * own.std() for _ in range(more)]
    return replace(encoded, planes=(own, *drawn))


def script(seed: int, layer: int, n: int, merge: bool) -> Entry:
    """Select some of n tokens at random, and merge others into them; layer -1 is the entry."""
    generator = torch.Generator().manual_seed(1000 * seed + layer + 1)
    k = max(1, int(n * (0.6 + 0.4 * float(torch.rand(1, generator=generator)))))
    keep = torch.randperm(n, generator=generator)[:k].sort().values
    if not merge:
        return Entry(keep)
    kept = torch.randint(k, (n,), generator=generator)
    source = torch.randint(n, (n,), generator=generator)
    return Entry(keep, Mix(kept, source, torch.rand(n, generator=generator) + 0.1))


@dataclass
class Count(MethodState):
    """How often the method was called."""

    asked: int = 0


@dataclass(frozen=True)
class Scripted(LayerMethod):
    """Keeps and merges what `script` selects; reads the question unless question-free."""

    name: ClassVar[str] = "scripted"
    seed: int = 0
    merge: bool = False

    def plan(self, tokens, layers):
        return Plan(len(tokens), (len(tokens),) * layers, adaptive=True)

    def start(self, plan):
        return Count()

    def enter(self, view, plan):
        return script(self.seed, -1, len(view.tokens), self.merge)

    def keep(self, view, count):
        if not self.question_free:
            assert len(view.attention("question")) == len(view.tokens)
        view.state.asked += 1
        assert view.state.asked == view.layer + 1
        return script(self.seed, view.layer, len(view.hidden()), self.merge)


@dataclass(frozen=True)
class ScriptedFree(Scripted):
    question_free: ClassVar[bool] = True


@torch.inference_mode()
def plain(
    adapter: Adapter, prompt: Prompt, planes: tuple[torch.Tensor, ...], method: Scripted
) -> tuple[torch.Tensor, list[list[int]]]:
    """Run all rows alive in one block per layer, token by token; return logits and survivors."""

    def carried(rows: list[torch.Tensor], entry: Entry) -> list[torch.Tensor]:
        made = [rows[i].clone() for i in entry.keep.tolist()]
        if entry.mix is None:
            return made
        table = list(
            zip(
                entry.mix.kept.tolist(),
                entry.mix.source.tolist(),
                entry.mix.weight.tolist(),
                strict=True,
            )
        )
        for place in {kept for kept, _, _ in table}:
            parts = [(rows[source], w) for kept, source, w in table if kept == place]
            made[place] = sum(row.double() * w for row, w in parts) / sum(w for _, w in parts)
        return [row.float() for row in made]

    layers, ids = adapter.info.text.layers, prompt.ids
    av = torch.nonzero(prompt.tokens.av).squeeze(1).tolist()
    entry = script(method.seed, -1, len(av), method.merge)
    left = [carried(list(plane.float()), entry) for plane in planes]
    av = [av[i] for i in entry.keep.tolist()]
    state = dict(zip(av, left.pop(0), strict=True))
    for row in torch.nonzero(~prompt.tokens.av).squeeze(1).tolist():
        state[row] = adapter.embed(ids[row : row + 1])[0]
    survivors, cache = [], KVCache(layers)
    for layer in range(layers):
        survivors.append(av)
        alive = sorted(state)
        hidden = torch.stack([state[row] for row in alive])[None]
        rotary = adapter.rotary(prompt.positions[:, alive])
        hidden = adapter.layer(layer, hidden, rotary, cache)
        state = dict(zip(alive, hidden[0], strict=True))
        if layer == layers - 1:
            break
        if left:
            for row, more in zip(av, left.pop(0), strict=True):
                state[row] = state[row] + more
        entry = script(method.seed, layer, len(av), method.merge)
        merged = carried([state[row] for row in av], entry)
        left = [carried(plane, entry) for plane in left]
        for row in av:
            del state[row]
        av = [av[i] for i in entry.keep.tolist()]
        state |= dict(zip(av, merged, strict=True))
    return adapter.logits(hidden[:, -1:]), survivors


@pytest.fixture(scope="module")
def encoded(model: Model, features: Features) -> Encoded:
    with model.features(features) as session:
        return session.encode()


@pytest.fixture(scope="module")
def adapter(model: Model) -> Adapter:
    return model.adapter


def prompt_of(adapter: Adapter, encoded: Encoded, question: str) -> Prompt:
    return build_prompt(adapter.text, adapter.template, question, encoded.media)


@pytest.fixture(scope="module")
def prompt(adapter: Adapter, encoded: Encoded) -> Prompt:
    return prompt_of(adapter, encoded, QUESTION)


def run(
    adapter: Adapter,
    prompt: Prompt,
    encoded: Encoded,
    method: Method,
    prefixes: Prefixes | None = None,
) -> Prefilled:
    return prefill(adapter, prompt, encoded, method, Meter(adapter.device), prefixes=prefixes)


@pytest.mark.parametrize("more", [1, 2, 3])
def test_planes_are_added_to_the_av_tokens_when_all_stay(
    adapter: Adapter, prompt: Prompt, encoded: Encoded, more: int
) -> None:
    clip = with_planes(encoded, more)
    mask = prompt.tokens.av
    own, *later = clip.in_prompt_order(prompt.tokens.video[mask])
    with torch.inference_mode():
        hidden = adapter.embed(prompt.ids)
        hidden[mask] = own
        hidden, cache = hidden[None], KVCache(adapter.info.text.layers)
        rotary = adapter.rotary(prompt.positions)
        for layer in range(adapter.info.text.layers):
            hidden = adapter.layer(layer, hidden, rotary, cache)
            if layer < more:
                hidden[:, mask] += later[layer]
        expected = adapter.logits(hidden[:, -1:])
    found = run(adapter, prompt, clip, Method())
    without = run(adapter, prompt, with_planes(encoded, 0), Method())
    torch.testing.assert_close(found.logits, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found.logits, without.logits, atol=1e-3)


@MODEL_SHARED
@given(
    seed=st.integers(0, 500),
    more=st.integers(0, 3),
    merge=st.booleans(),
    free=st.booleans(),
    split=st.booleans(),
    cut=st.booleans(),
)
def test_the_loop_equals_a_plain_one(
    adapter: Adapter,
    prompt: Prompt,
    encoded: Encoded,
    seed: int,
    more: int,
    merge: bool,
    free: bool,
    split: bool,
    cut: bool,
) -> None:
    clip = with_planes(encoded, more, seed)
    kind = ScriptedFree if free else Scripted
    method = kind(seed=seed, merge=merge, cache="cut" if cut else "own")
    planes = clip.in_prompt_order(prompt.tokens.video[prompt.tokens.av])
    logits, survivors = plain(adapter, prompt, planes, method)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefill_module, "SPLIT_FROM", 1 if split else 10**6)
        found = run(adapter, prompt, clip, method)
    assert [index.tolist() for index in found.survivors] == survivors
    torch.testing.assert_close(found.logits, logits, atol=2e-4, rtol=1e-4)
    text = int((~prompt.tokens.av).sum())
    held = [survivors[-1] if cut else entered for entered in survivors]
    assert found.cache.lengths == tuple(text + len(entered) for entered in held)


@MODEL_SHARED
@given(seed=st.integers(0, 500), more=st.integers(0, 3), merge=st.booleans(), free=st.booleans())
def test_a_resumed_question_equals_a_fresh_one(
    adapter: Adapter, encoded: Encoded, seed: int, more: int, merge: bool, free: bool
) -> None:
    method = (ScriptedFree if free else Scripted)(seed=seed, merge=merge)
    first, second = (prompt_of(adapter, encoded, question) for question in (OTHER, QUESTION))
    clip = with_planes(encoded, more, seed)
    prefixes = Prefixes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefill_module, "SPLIT_FROM", 1)
        run(adapter, first, clip, method, prefixes)
        resumed = run(adapter, second, clip, method, prefixes)
        fresh = run(adapter, second, clip, method, Prefixes())
    assert (resumed.reused, fresh.reused) == (adapter.info.text.layers if free else 1, 0)
    assert torch.equal(resumed.logits, fresh.logits)
    assert all(map(torch.equal, resumed.survivors, fresh.survivors))
    assert resumed.cache.lengths == fresh.cache.lengths


@dataclass
class Held(MethodState):
    """Stores the clip's embeddings."""

    embeds: torch.Tensor | None = None


@dataclass(frozen=True)
class Holding(LayerMethod):
    """Stores all embeddings at entry, as SparseVLM does, and reads the question."""

    name: ClassVar[str] = "holding"
    seen: ClassVar[list[int]] = []

    def plan(self, tokens, layers):
        return Plan(len(tokens), (len(tokens),) * layers, adaptive=True)

    def start(self, plan):
        return Held()

    def enter(self, view, plan):
        view.state.embeds = view.embeds
        return Entry(torch.arange(len(view.tokens)))

    def keep(self, view, count):
        if view.layer == 0:
            self.seen.append(view.state.embeds.data_ptr())
            view.state.embeds = None
        return torch.arange(len(view.tokens))


def held_prefix(prefixes: Prefixes) -> Prefix:
    ((_, prefix),) = prefixes._held
    return prefix


def test_a_prefix_counts_all_its_bytes_and_copies_nothing(
    adapter: Adapter, prompt: Prompt, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill_module, "SPLIT_FROM", 1)
    Holding.seen.clear()
    prefixes = {more: Prefixes() for more in (0, 1, 3)}
    for more, kept in prefixes.items():
        for _ in range(2):
            run(adapter, prompt, with_planes(encoded, more), Holding(), kept)
    # Every question used the same tensor: neither storing nor resuming a prefix copies it.
    assert len(set(Holding.seen[:2])) == len(set(Holding.seen[2:4])) == 1
    own, *_ = encoded.in_prompt_order(prompt.tokens.video[prompt.tokens.av])
    bare, one, three = (held_prefix(kept) for kept in prefixes.values())
    assert bare.handover is not None
    (embeds,) = bare.handover.state.tensors()
    without = replace(bare.handover, state=MethodState())
    assert bare.bytes - replace(bare, handover=without).bytes == embeds.untyped_storage().nbytes()
    # The plane after layer 0 is in the states; two of three are still to be added.
    assert one.bytes == bare.bytes
    assert three.bytes == bare.bytes + 2 * own.nbytes
