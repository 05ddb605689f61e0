"""The layer loop: a prompt goes up through the decoder and loses tokens on the way.

Scores for layer l come from the hidden states that entered it against its own cached keys, and
the chosen tokens go on to layer l + 1. Text is never dropped and positions are never renumbered:
the rotary rows of the survivors are gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from omnidrop.engine.cache import KVCache
from omnidrop.engine.encode import Encoded
from omnidrop.engine.meter import Meter
from omnidrop.models.adapter import Adapter
from omnidrop.prompt import Prompt, TokenMap
from omnidrop.pruning.method import Entry, EntryView, Method, Plan, Rows
from omnidrop.pruning.relevance import relevance as relevance_of
from omnidrop.pruning.relevance import row_relevance


@dataclass(frozen=True)
class Prefilled:
    """A prompt that has passed all layers.

    Attributes
    ----------
    cache : KVCache
        Keys and values of every layer.
    logits : Tensor, (V,) float32
        Scores of the first answer token.
    plan : Plan
        What the schedule wanted.
    survivors : tuple of Tensor, length L
        Prompt indices of the AV tokens entering each layer, int64 on the CPU.
    relevance : Tensor or None, (n,) float32
        Attention of the question's rows to the AV tokens alive at layer L // 2.
    relevance_tokens : Tensor or None, (n,) int64
        Prompt indices of those tokens.
    next_position : int
        Position of the first generated token.
    """

    cache: KVCache
    logits: torch.Tensor
    plan: Plan
    survivors: tuple[torch.Tensor, ...]
    relevance: torch.Tensor | None
    relevance_tokens: torch.Tensor | None
    next_position: int


@dataclass
class _State:
    """The sequence between two layers; `alive` holds prompt indices, ascending, on the CPU."""

    alive: torch.Tensor
    tokens: TokenMap
    hidden: torch.Tensor
    rotary: tuple[torch.Tensor, torch.Tensor]

    @property
    def av(self) -> torch.Tensor:
        return torch.nonzero(self.tokens.av).squeeze(1)

    def keep(self, index: torch.Tensor) -> None:
        on_device = index.to(self.hidden.device)
        self.alive = self.alive[index]
        self.tokens = self.tokens.select(index)
        self.hidden = self.hidden.index_select(1, on_device)
        cos, sin = self.rotary
        self.rotary = (cos.index_select(1, on_device), sin.index_select(1, on_device))


@dataclass
class _View:
    """A `LayerView`: the layer just run, seen by a method. Attention is computed when asked for."""

    layer: int
    layers: int
    generator: torch.Generator
    tokens: TokenMap
    memo: dict[str, Any]
    _adapter: Adapter
    _cache: KVCache
    _entered: torch.Tensor
    _state: _State
    _av: torch.Tensor
    _known: dict[str, torch.Tensor] = field(default_factory=dict)

    def attention(self, rows: Rows) -> torch.Tensor:
        if rows not in self._known:
            self._known[rows] = self._scored(relevance_of, rows)
        return self._known[rows]

    def row_attention(self, rows: Rows) -> torch.Tensor:
        return self._scored(row_relevance, rows)

    def hidden(self) -> torch.Tensor:
        return self._left(self._av)

    def text_hidden(self, rows: Rows) -> torch.Tensor:
        return self._left(query_rows(self._state.tokens, rows))

    def _left(self, index: torch.Tensor) -> torch.Tensor:
        return self._state.hidden[0].index_select(0, index.to(self._state.hidden.device))

    def _scored(self, score: Callable[..., torch.Tensor], rows: Rows) -> torch.Tensor:
        index = query_rows(self._state.tokens, rows)
        device = self._entered.device
        on_device = index.to(device)
        cos, sin = self._state.rotary
        queries = self._adapter.queries(
            self.layer,
            self._entered.index_select(1, on_device),
            (cos.index_select(1, on_device), sin.index_select(1, on_device)),
        )
        scores = score(
            queries,
            self._cache.keys(self.layer)[0],
            rows=on_device,
            columns=self._av.to(device),
            scaling=self._adapter.scaling,
        )
        return scores.cpu()


def query_rows(tokens: TokenMap, rows: Rows) -> torch.Tensor:
    """Return which rows of a sequence ask for relevance.

    Parameters
    ----------
    tokens : TokenMap
        The sequence as it is now.
    rows : {"question", "last", "all-text"}
        The user's words; the last token; or every token that is not audio or video and comes
        after the first AV token (rows before it cannot see any).

    Returns
    -------
    Tensor, (r,) int64
    """
    last = torch.tensor([len(tokens) - 1])
    if rows == "last":
        return last
    if rows == "question":
        index = torch.nonzero(tokens.question).squeeze(1)
        return index if len(index) else last
    av = torch.nonzero(tokens.av).squeeze(1)
    text = torch.nonzero(~tokens.av).squeeze(1)
    return text[text > av[0]] if len(av) else last


@torch.inference_mode()
def prefill(
    adapter: Adapter,
    prompt: Prompt,
    encoded: Encoded,
    method: Method,
    meter: Meter,
    *,
    seed: int = 0,
) -> Prefilled:
    """Run a prompt through the decoder under a method.

    Parameters
    ----------
    adapter : Adapter
        The model.
    prompt : Prompt
        Ids, positions and token map.
    encoded : Encoded
        The clip's embeddings.
    method : Method
        Decides what enters and what stays.
    meter : Meter
        Receives the times of entry, prefill and selection.
    seed : int
        For methods that draw.

    Raises
    ------
    BudgetError
        If the method cannot reach its budget on this prompt.
    """
    layers = adapter.info.text.layers
    generator = torch.Generator().manual_seed(seed)
    av = torch.nonzero(prompt.tokens.av).squeeze(1)
    plan = method.plan(prompt.tokens.select(av), layers)
    memo: dict[str, Any] = {}
    with meter.stage("entry"):
        state = _enter(adapter, prompt, encoded, method, plan, av, generator, memo)
    cache = KVCache(layers)
    survivors: list[torch.Tensor] = []
    relevance = relevance_tokens = None
    with meter.stage("prefill"):
        for layer in range(layers):
            here = state.av
            survivors.append(state.alive[here])
            entered = state.hidden
            state.hidden = adapter.layer(layer, entered, state.rotary, cache)
            if not len(here):
                continue
            view = _View(
                layer=layer,
                layers=layers,
                generator=generator,
                tokens=state.tokens.select(here),
                memo=memo,
                _adapter=adapter,
                _cache=cache,
                _entered=entered,
                _state=state,
                _av=here,
            )
            with meter.stage("selection"):
                if layer == layers // 2:
                    relevance, relevance_tokens = view.attention("question"), survivors[-1]
                if layer + 1 < layers and (plan.adaptive or plan.counts[layer + 1] < len(here)):
                    _apply(
                        method.keep(view, plan.counts[layer + 1]),
                        here,
                        state,
                        cache,
                        layer,
                        method.cache == "cut",
                    )
        logits = adapter.logits(state.hidden[:, -1:])
    return Prefilled(
        cache=cache,
        logits=logits,
        plan=plan,
        survivors=tuple(survivors),
        relevance=relevance,
        relevance_tokens=relevance_tokens,
        next_position=prompt.next_position,
    )


def _enter(
    adapter: Adapter,
    prompt: Prompt,
    encoded: Encoded,
    method: Method,
    plan: Plan,
    av: torch.Tensor,
    generator: torch.Generator,
    memo: dict[str, Any],
) -> _State:
    device = adapter.device
    tokens = prompt.tokens
    text = torch.nonzero(~tokens.av).squeeze(1)
    words = adapter.embed(prompt.ids[text].to(device))
    if not len(av):
        alive, hidden = text, words
    else:
        own = encoded.in_prompt_order(tokens.video[av]).to(device=device, dtype=words.dtype)
        entry = method.enter(
            EntryView(
                tokens=tokens.select(av),
                embeds=own,
                audio_attention=encoded.audio_attention,
                generator=generator,
                video_attention=encoded.video_attention,
                memo=memo,
            ),
            plan,
        )
        keep = entry.keep.cpu()
        kept = own.index_select(0, keep.to(device)) if entry.embeds is None else entry.embeds
        alive, order = torch.cat([text, av[keep]]).sort()
        hidden = torch.cat([words, kept.to(words.dtype)]).index_select(0, order.to(device))
    return _State(
        alive=alive,
        tokens=tokens.select(alive),
        hidden=hidden.unsqueeze(0),
        rotary=adapter.rotary(prompt.positions[:, alive].to(device)),
    )


def _apply(
    chosen: torch.Tensor | Entry,
    here: torch.Tensor,
    state: _State,
    cache: KVCache,
    layer: int,
    cut: bool,
) -> None:
    """Let the chosen of the AV tokens at `here` go on, with new states where there are any."""
    entry = chosen if isinstance(chosen, Entry) else Entry(chosen)
    kept = here[entry.keep.cpu()]
    if entry.embeds is not None:
        state.hidden[0, kept.to(state.hidden.device)] = entry.embeds.to(state.hidden)
    if len(kept) < len(here):
        _drop(state, kept, cache, layer, cut)


def _drop(state: _State, kept: torch.Tensor, cache: KVCache, layer: int, cut: bool) -> None:
    stays = ~state.tokens.av
    stays[kept] = True
    before = state.alive
    state.keep(torch.nonzero(stays).squeeze(1))
    if not cut:
        return
    # Layers already passed hold the tokens that entered them; all those were cut to `before`.
    index = torch.searchsorted(before, state.alive)
    for passed in range(layer + 1):
        cache.cut(passed, index)
