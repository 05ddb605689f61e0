"""The layer loop: a prompt goes up through the decoder and loses tokens on the way.

Scores for layer l come from the hidden states that entered it against its own cached keys, and
the chosen tokens go on to layer l + 1. Text is never dropped and positions are never renumbered:
the rotary rows of the survivors are gathered.

Up to the layer after which the question first has a say, the clip's rows and the question's go
apart, the question's after the clip's. So the clip's give the same numbers whatever is asked, and
an answer does not depend on whether they were computed now or for an earlier question (in one pass
over all rows a kernel's rounding may change with the number of rows).
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from omnidrop.engine.cache import KVCache, Lent
from omnidrop.engine.encode import Encoded
from omnidrop.engine.meter import Meter
from omnidrop.engine.prefix import Key, Prefix, Prefixes
from omnidrop.engine.sequence import Block, Places, Sequence, View, clip_end
from omnidrop.models.adapter import Adapter
from omnidrop.moving import moved
from omnidrop.prompt import Prompt
from omnidrop.pruning.method import Backbone, Entry, EntryView, Method, Plan

#: Fewer rows of a clip than this go together with the question's: a pass of their own through the
#: weights would cost more than it saves.
APART_FROM = 512


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
    alive : tuple of Tensor, length L
        Prompt indices of the AV tokens entering each layer, int64 on the model's device.
    weighed : Tensor or None, (n,) float32
        Attention of the question's rows to the AV tokens alive at layer L // 2, on the device.
    next_position : int
        Position of the first generated token.
    reused : int
        Layers, from the first, that the clip's rows went through for an earlier question.
    """

    cache: KVCache
    logits: torch.Tensor
    plan: Plan
    alive: tuple[torch.Tensor, ...]
    weighed: torch.Tensor | None
    next_position: int
    reused: int = 0

    @cached_property
    def survivors(self) -> tuple[torch.Tensor, ...]:
        """`alive` on the CPU: one copy, made when first asked for."""
        return torch.cat(self.alive).cpu().split([len(index) for index in self.alive])

    @cached_property
    def relevance(self) -> torch.Tensor | None:
        """`weighed` on the CPU."""
        return None if self.weighed is None else self.weighed.cpu()

    @property
    def relevance_tokens(self) -> torch.Tensor | None:
        """Prompt indices of the tokens that `relevance` is about, (n,) int64 on the CPU."""
        return None if self.weighed is None else self.survivors[len(self.alive) // 2]


@torch.inference_mode()
def prefill(
    adapter: Adapter,
    prompt: Prompt,
    encoded: Encoded,
    method: Method,
    meter: Meter,
    *,
    seed: int = 0,
    prefixes: Prefixes | None = None,
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
    prefixes : Prefixes, optional
        What earlier questions about the same embeddings left; this one leaves its own there. The
        result is the same with and without, but for one case: without, a prompt that loses nothing
        goes up in one piece, as `generate` takes it, and in 16 bits that may round otherwise.

    Raises
    ------
    BudgetError
        If the method cannot reach its budget on this prompt.
    """
    av = torch.nonzero(prompt.tokens.av).squeeze(1)
    plan = method.plan(prompt.tokens.select(av), adapter.info.text.layers)
    end = clip_end(prompt.tokens)
    if not end:
        prefixes = None
    key = Key(method, plan, seed, tuple(prompt.ids[:end].tolist()))
    known = prefixes.find(key) if prefixes is not None else None
    whole = not plan.adaptive and all(count == plan.total for count in plan.counts)
    apart_from = APART_FROM if prefixes is not None or not whole else len(prompt.tokens)
    climb = _Climb(adapter, prompt, end, method, plan, meter, apart_from)
    if known is not None:
        through = f"prefix through layer {known.layers} of {adapter.info.text.layers}"
        meter.add("entry", 0.0, reused=True)
        meter.add(through, 0.0, within="prefill", reused=True)
        climb.resume(known)
    else:
        with meter.stage("entry"):
            climb.begin(encoded, av, torch.Generator().manual_seed(seed))
    with meter.stage("prefill"):
        logits = climb.run(keeping=prefixes is not None)
    if prefixes is not None and climb.prefix is not None:
        prefixes.add(key, climb.prefix)
    return Prefilled(
        cache=climb.cache,
        logits=logits,
        plan=plan,
        alive=tuple(climb.survivors),
        weighed=climb.weighed,
        next_position=prompt.next_position,
        reused=known.layers if known is not None else 0,
    )


class _Climb:
    """One prompt on its way up, from `begin` or `resume` to `run`.

    `prefix` is what the next question can use of it, once the question had a say.
    """

    generator: torch.Generator
    memo: dict[str, Any]
    sequence: Sequence

    def __init__(
        self,
        adapter: Adapter,
        prompt: Prompt,
        end: int,
        method: Method,
        plan: Plan,
        meter: Meter,
        apart_from: int,
    ) -> None:
        self.adapter, self.prompt, self.end = adapter, prompt, end
        self.device = adapter.device
        self.places = Places(prompt, self.device)
        self.on_host = bool(method.needs_host) or plan.adaptive
        self.apart_from = apart_from
        self.method, self.plan, self.meter = method, plan, meter
        self.layers = adapter.info.text.layers
        self.cache = KVCache(self.layers)
        self.survivors: list[torch.Tensor] = []
        self.weighed: torch.Tensor | None = None
        self.prefix: Prefix | None = None
        self._known: Prefix | None = None
        self._lent: list[Lent] = []

    def begin(self, encoded: Encoded, av: torch.Tensor, generator: torch.Generator) -> None:
        """Let the method choose what enters."""
        self.generator, self.memo = generator, {}
        tokens, text = self.prompt.tokens, self.places.text
        words = self.adapter.embed(self.places.ids[text])
        if not len(av):
            self.sequence = self._sequence(text, av.to(self.device), words)
            return
        own = encoded.in_prompt_order(tokens.video[av]).to(device=self.device, dtype=words.dtype)
        entry = self.method.enter(
            EntryView(
                tokens=tokens.select(av),
                embeds=own,
                audio_attention=encoded.audio_attention,
                generator=generator,
                video_attention=encoded.video_attention,
                memo=self.memo,
                backbone=Backbone(
                    self.adapter.info.name, self.adapter.fingerprint, self.adapter.folder
                ),
            ),
            self.plan,
        )
        keep = moved(entry.keep, self.device)
        kept = own.index_select(0, keep) if entry.embeds is None else entry.embeds
        chosen = moved(av, self.device)[keep]
        alive, order = torch.cat([text, chosen]).sort()
        hidden = torch.cat([words, kept.to(words)]).index_select(0, order)
        self.sequence = self._sequence(alive, chosen, hidden)

    def resume(self, known: Prefix) -> None:
        """Take the clip's part from an earlier question."""
        self._known = known
        known.lend(self.cache)
        self.memo = copy.deepcopy(known.memo)
        self.generator = torch.Generator()
        self.generator.set_state(known.generator)
        text, chosen = self.places.text, known.survivors[0]
        words = self.adapter.embed(self.places.ids[text[self.places.text_before(self.end) :]])
        self.sequence = self._sequence(torch.cat([text, chosen]).sort().values, chosen, words)

    def _sequence(self, alive: torch.Tensor, av: torch.Tensor, hidden: torch.Tensor) -> Sequence:
        """Make the sequence of `alive` rows; states may be those of the last of them alone.

        `av` are the prompt indices of the AV tokens among them.
        """
        split = self.places.text_before(self.end) + len(av) if self.end else 0
        split = split if split >= self.apart_from else 0
        tail = hidden.shape[0] - (len(alive) - split)
        return Sequence(
            alive=alive,
            av=torch.searchsorted(alive, av),
            head=self._block(alive[:split], hidden[:tail]) if split and tail else None,
            tail=self._block(alive[split:], hidden[tail:]),
        )

    def _block(self, rows: torch.Tensor, hidden: torch.Tensor) -> Block:
        return Block(hidden[None], self.adapter.rotary(self.places.positions[:, rows]))

    def run(self, *, keeping: bool) -> torch.Tensor:
        """Go through all layers and return the logits of the first answer token.

        Parameters
        ----------
        keeping : bool
            Make `prefix`.
        """
        keeping = keeping and self._known is None
        for layer in range(self.layers - 1):
            sequence = self.sequence
            self._arrive()
            entered = sequence.tail
            if sequence.head is not None:
                sequence.head = self._through(layer, sequence.head)
            sequence.tail = self._through(layer, entered)
            if keeping and sequence.split:
                self._lent.append(self.cache.lend(layer, sequence.split))
            if len(sequence.av):
                self._look(layer, entered, keeping)
        return self._finish(self.layers - 1, keeping)

    def _arrive(self) -> None:
        self.survivors.append(self.sequence.alive[self.sequence.av])

    def _through(self, layer: int, block: Block) -> Block:
        hidden = self.adapter.layer(layer, block.hidden, block.rotary, self.cache)
        return Block(hidden, block.rotary)

    def _finish(self, layer: int, keeping: bool) -> torch.Tensor:
        """Go through the last layer: all rows are seen there, and one is asked for its state."""
        sequence = self.sequence
        self._arrive()
        entered = sequence.tail
        for block in (sequence.head, entered.but_last()):
            if block is not None and len(block):
                self.adapter.remember(layer, block.hidden, block.rotary, self.cache)
        last = self._through(layer, entered.last())
        if layer == self.layers // 2 and len(sequence.av):
            self._weigh(self._view(layer, entered))
        if keeping and sequence.split:
            self._lent.append(self.cache.lend(layer, sequence.split))
            self.prefix = self._keep_prefix(None)
        return self.adapter.logits(last.hidden)

    def _view(self, layer: int, entered: Block) -> View:
        return View(
            layer=layer,
            layers=self.layers,
            generator=self.generator,
            memo=self.memo,
            on_host=self.on_host,
            _adapter=self.adapter,
            _cache=self.cache,
            _entered=entered,
            _sequence=self.sequence,
            _places=self.places,
        )

    def _weigh(self, view: View) -> None:
        with self.meter.stage("selection"):
            self.weighed = view.received("question")

    def _look(self, layer: int, entered: Block, keeping: bool) -> None:
        """Score and choose after a layer, where there is something to do."""
        count = self.plan.counts[layer + 1]
        follows = self._known is not None and layer + 1 < self._known.layers
        chooses = not follows and (self.plan.adaptive or count < len(self.sequence.av))
        if chooses or layer == self.layers // 2:
            view = self._view(layer, entered)
        if layer == self.layers // 2:
            self._weigh(view)
        if self._known is not None and follows:
            stays = torch.searchsorted(self.survivors[-1], self._known.survivors[layer + 1])
            self._apply(layer, Entry(stays))
        if not chooses:
            return
        with self.meter.stage("selection"):
            if self.method.question_free:
                view.blind = True
            else:
                self._together(keeping)
            chosen = self.method.keep(view, count)
            self._apply(layer, chosen if isinstance(chosen, Entry) else Entry(chosen))

    def _together(self, keeping: bool) -> None:
        """From here on the question has a say, and the clip's rows go on with its own."""
        if not self.sequence.split:
            return
        if self._known is not None:
            self.sequence.head = self._known.block
        elif keeping:
            self.prefix = self._keep_prefix(self.sequence.head)
        self.sequence.join()

    def _keep_prefix(self, block: Block | None) -> Prefix:
        return Prefix(
            survivors=tuple(self.survivors),
            states=tuple(self._lent),
            block=block,
            memo=copy.deepcopy(self.memo) if block is not None else {},
            generator=self.generator.get_state(),
            user=weakref.ref(self.cache),
        )

    def _apply(self, layer: int, entry: Entry) -> None:
        """Let the chosen AV tokens go on, with new states where there are any."""
        sequence = self.sequence
        kept = sequence.av[moved(entry.keep, self.device)]
        if entry.embeds is not None:
            states = sequence.first.hidden
            states[0, kept] = entry.embeds.to(states)
        if len(kept) == len(sequence.av):
            return
        before = sequence.alive
        text = torch.searchsorted(before, self.places.text)
        sequence.keep(text, kept, self.places.lead)
        if self.method.cache == "cut":
            # Layers passed hold the tokens that entered them; all those were cut to `before`.
            index = torch.searchsorted(before, sequence.alive)
            for passed in range(layer + 1):
                self.cache.cut(passed, index)
