"""The layer loop of the prefill: audio and video (AV) tokens are pruned between decoder layers.

Scores for layer l come from the hidden states that entered it and its cached keys; the selected
tokens enter layer l + 1. Text is never dropped and positions are never renumbered: the survivors
keep their rotary rows.

Until the question first takes part in the selection, each layer computes the clip's rows and the
question's rows separately. So the clip's rows get the same values for every question, and an answer
does not depend on whether they were computed now or for an earlier question. (In one pass over all
rows, a kernel's rounding may change with the number of rows.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch

from omnidrop.engine.cache import KVCache
from omnidrop.engine.device_prompt import DevicePrompt
from omnidrop.engine.encode import Encoded
from omnidrop.engine.evidence import Attended, prompt_shares
from omnidrop.engine.layer_view import DecoderLayerView, LayerAttention
from omnidrop.engine.prefix import Handover, Key, Prefix, Prefixes, PrefixRecorder, Resumed
from omnidrop.engine.sequence import Block, Rows, Split, Whole, taken
from omnidrop.engine.timing import Meter
from omnidrop.errors import ModelError
from omnidrop.evidence import EvidenceReading
from omnidrop.models.adapter import Adapter
from omnidrop.pruning.method import (
    OF_THE_QUESTION,
    Backbone,
    Entry,
    EntryView,
    Method,
    MethodState,
    Need,
    Plan,
    WholePrompt,
)
from omnidrop.stages import StageName, prefix_stage
from omnidrop.tokens import Prompt
from omnidrop.transfers import to_device

#: A clip with fewer rows than this is computed together with the question: a separate pass would
#: read all weights once more, which costs more than it saves.
SPLIT_FROM = 512


@dataclass(frozen=True)
class Prefilled:
    """The result of a prefill.

    Attributes
    ----------
    cache : KVCache
        Keys and values of every layer.
    logits : Tensor, (V,) float32
        Logits of the first answer token.
    plan : Plan
        The method's plan: how many AV tokens enter each layer.
    device_survivors : tuple of Tensor, length L
        Prompt indices of the AV tokens entering each layer, int64 on the model's device.
    reading : EvidenceReading
        Which attention `attended` is.
    attended : tuple of Attended
        That attention, of each layer of the reading that AV tokens entered, on the device.
    prompt_tokens : int
        Tokens of the prompt, N.
    next_position : int or float
        Position of the first generated token.
    reused : int
        Number of first layers whose clip rows came from an earlier question's prefix.
    """

    cache: KVCache
    logits: torch.Tensor
    plan: Plan
    device_survivors: tuple[torch.Tensor, ...]
    reading: EvidenceReading
    attended: tuple[Attended, ...]
    prompt_tokens: int
    next_position: int | float
    reused: int = 0

    @cached_property
    def survivors(self) -> tuple[torch.Tensor, ...]:
        """`device_survivors` on the CPU; copied once, at the first access."""
        lengths = [len(index) for index in self.device_survivors]
        return torch.cat(self.device_survivors).cpu().split(lengths)

    @cached_property
    def relevance(self) -> torch.Tensor | None:
        """Share of each prompt token in the attention read, (N,) float32 on the CPU.

        0 for text, and for tokens dropped before the layers of the reading; None if all were.
        """
        return prompt_shares(self.attended, self.survivors, self.reading.heads, self.prompt_tokens)


@dataclass(frozen=True)
class _Task:
    """One prefill to run: model, prompt, method and plan."""

    adapter: Adapter
    prompt: DevicePrompt
    method: Method
    plan: Plan
    meter: Meter
    reading: EvidenceReading
    alive: Callable[[], None] | None = None

    @property
    def layers(self) -> int:
        return self.adapter.info.text.layers

    def cache(self) -> KVCache:
        """Return an empty cache."""
        even = not self.plan.adaptive and len(set(self.plan.counts)) == 1
        return KVCache(self.layers, even=even)

    def block(self, rows: torch.Tensor, hidden: torch.Tensor) -> Block:
        """Return prompt rows `rows` ((n,) int64) with states `hidden` ((n, D)) as a block."""
        return Block.of(hidden[None], self.adapter.rotary(self.prompt.positions[:, rows]))


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
    reading: EvidenceReading | None = None,
    plan: Plan | None = None,
    alive: Callable[[], None] | None = None,
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
        Selects the tokens that enter layer 0, and those kept after each layer.
    meter : Meter
        Receives the times of entry, prefill and selection.
    seed : int
        Seed of methods that use random numbers.
    prefixes : Prefixes, optional
        Prefixes of earlier questions on the same embeddings; this question's is added. The result
        does not depend on it, with one exception: without it, a prompt that drops nothing is
        computed in one block, as in the reference's `generate`, which may round differently in 16
        bits.
    reading : EvidenceReading, optional
        Which attention goes into `Prefilled.relevance`; it changes nothing else. Default: that of
        the question at half depth.
    plan : Plan, optional
        The method's plan for this prompt, where it was made already.
    alive : callable, optional
        Called before each layer; what it raises ends the prefill.

    Raises
    ------
    BudgetError
        If the method cannot reach its budget on this prompt.
    ModelError
        If the logits are not finite.
    """
    on_device = DevicePrompt(prompt, adapter.device)
    layers = adapter.info.text.layers
    if plan is None:
        plan = method.plan(on_device.av_on_host, layers)
    reading = reading or EvidenceReading.usual(layers)
    task = _Task(adapter, on_device, method, plan, meter, reading, alive)
    # Where the question chooses what enters, no layer of the clip is the same for another one.
    end = 0 if method.wants & OF_THE_QUESTION else task.prompt.clip_end()
    kept = prefixes if end else None
    key = Key(method, plan, tuple(prompt.ids[:end].tolist())) if kept is not None else None
    known = kept.find(key, seed) if kept is not None and key is not None else None
    if known is not None:
        loop = _resumed(task, known, seed, end)
    else:
        drops = plan.adaptive or any(count != plan.total for count in plan.counts)
        split_at = end if drops or kept is not None else 0
        with meter.stage(StageName.ENTRY):
            loop = _entered(task, encoded, seed, split_at, record=kept is not None)
    with meter.stage(StageName.PREFILL):
        logits = loop.run()
    _check_finite(logits, adapter)
    if kept is not None and key is not None and loop.prefix is not None:
        kept.add(key, loop.prefix)
    return Prefilled(
        cache=loop.cache,
        logits=logits,
        plan=plan,
        device_survivors=tuple(loop.survivors),
        reading=reading,
        attended=tuple(loop.attended),
        prompt_tokens=len(prompt),
        next_position=prompt.next_position,
        reused=known.layers if known is not None else 0,
    )


def backbone_of(adapter: Adapter) -> Backbone:
    """Return whose embeddings a method sees, for what was trained for them."""
    return Backbone(adapter.info.name, adapter.fingerprint, adapter.folder)


def _check_finite(logits: torch.Tensor, adapter: Adapter) -> None:
    """Refuse logits with NaN or infinities: their highest is token 0, whatever was asked.

    This waits for the device, as choosing the first token does right after.
    """
    if bool(logits.isfinite().all()):
        return
    narrow = adapter.info.dtype == "float16"
    raise ModelError(
        f"The model's logits are not numbers (NaN or infinity), as computed in "
        f"{adapter.info.dtype} on {adapter.info.device}.",
        path=adapter.info.name,
        hint="float16 is too narrow for some models: use --dtype float32, or bfloat16 on a GPU."
        if narrow
        else "Its weights are damaged: download them again.",
    )


def _entered(
    task: _Task, encoded: Encoded, seed: int, split_at: int, *, record: bool
) -> _LayerLoop:
    """Run the method's entry selection and build the rows that enter layer 0.

    `split_at` is the prompt index at which the clip ends; 0 to compute all rows in one block.
    """
    adapter, prompt, method = task.adapter, task.prompt, task.method
    rows, state = Rows.of(prompt), method.start(task.plan)
    generator = torch.Generator().manual_seed(seed)
    words = adapter.embed(prompt.ids[rows.text])
    planes: tuple[torch.Tensor, ...] = ()
    if len(rows.av):
        tokens = prompt.av_on_host
        planes = tuple(
            plane.to(device=words.device, dtype=words.dtype)
            for plane in encoded.in_prompt_order(tokens.video)
        )
        view = EntryView(
            tokens=tokens,
            embeds=planes[0],
            audio_attention=encoded.audio_attention,
            generator=generator,
            video_attention=encoded.video_attention,
            state=state,
            backbone=backbone_of(adapter),
            question_embeds=_question(task) if Need.QUESTION in method.wants else None,
            phrase_embeds=_phrases(task),
            prompt=_whole(task, words, planes[0]) if Need.PROMPT in method.wants else None,
        )
        entry = method.enter(view, task.plan)
        rows, _ = rows.keep(entry.keep)
        own = taken(planes[0], entry) if entry.states is None else entry.carry(planes[0])
        planes = (own, *(taken(plane, entry) for plane in planes[1:]))
        words = words if entry.text is None else entry.text.to(words)
    hidden = words.new_empty((len(rows), words.shape[1]))
    hidden.index_copy_(0, rows.text, words)
    if planes:
        hidden.index_copy_(0, rows.av, planes[0])
    cache = task.cache()
    clip = prompt.text_before(split_at) + len(rows.av) if split_at else 0
    if clip < SPLIT_FROM or not split_at:
        whole = Whole(rows, task.block(rows.alive, hidden), planes[1:])
        return _LayerLoop(task, cache, whole, state, generator)
    split = Split(
        rows,
        task.block(rows.alive[:clip], hidden[:clip]),
        task.block(rows.alive[clip:], hidden[clip:]),
        planes[1:],
    )
    return _LayerLoop(
        task, cache, split, state, generator, PrefixRecorder(cache) if record else None
    )


def _whole(task: _Task, words: torch.Tensor, clip: torch.Tensor) -> WholePrompt:
    """Return all rows of the prompt, given the embeddings of its text and of its clip."""
    prompt = task.prompt
    embeds = words.new_empty((len(prompt), words.shape[1]))
    embeds.index_copy_(0, prompt.text, words)
    embeds.index_copy_(0, prompt.av, clip)
    return WholePrompt(embeds, prompt.positions, prompt.av, prompt.text)


def _question(task: _Task) -> torch.Tensor:
    """Return the embeddings with which the question's rows enter layer 0, (r, D)."""
    return task.adapter.embed(task.prompt.ids[task.prompt.query_rows("question")])


def _phrases(task: _Task) -> tuple[torch.Tensor, ...]:
    """Return the embeddings of the method's phrases, (r, D) each."""
    ids = [task.adapter.text.encode(phrase)[0] for phrase in task.method.phrases]
    if not ids:
        return ()
    flat = torch.tensor([token for words in ids for token in words], dtype=torch.int64)
    return task.adapter.embed(to_device(flat, task.prompt.device)).split([len(w) for w in ids])


def _resumed(task: _Task, known: Prefix, seed: int, end: int) -> _LayerLoop:
    """Continue from an earlier question's prefix; the question's rows begin at `end`."""
    adapter, prompt = task.adapter, task.prompt
    task.meter.add(StageName.ENTRY, 0.0, reused=True)
    through = prefix_stage(known.layers, task.layers)
    task.meter.add(through, 0.0, within=StageName.PREFILL, reused=True)
    cache, generator = task.cache(), torch.Generator().manual_seed(seed)
    known.start(cache)
    state = task.method.start(task.plan)
    if known.handover is not None:
        state = known.handover.state.fork()
        if known.seed is not None:
            generator.set_state(known.handover.generator)
    rows = Rows.of(prompt)
    rows, _ = rows.keep(torch.searchsorted(rows.survivors, known.survivors[0]))
    words = adapter.embed(prompt.ids[end:])
    question = task.block(torch.arange(end, len(prompt), device=prompt.device), words)
    return _LayerLoop(task, cache, Resumed(rows, question, known), state, generator)


@dataclass
class _LayerLoop:
    """One pass through all layers.

    Attributes
    ----------
    task : _Task
    cache : KVCache
    sequence : Whole, Split or Resumed
        The rows alive between the layer just run and the next.
    state : MethodState
    generator : torch.Generator
        Random numbers of the method.
    recorder : PrefixRecorder or None
        Collects a prefix for later questions, up to where the question takes part.
    prefix : Prefix or None
        The prefix that was collected.
    survivors : list of Tensor
        Prompt indices of the AV tokens that entered each layer so far.
    attended : list of Attended
        `Prefilled.attended` so far.
    """

    task: _Task
    cache: KVCache
    sequence: Whole | Split | Resumed
    state: MethodState
    generator: torch.Generator
    recorder: PrefixRecorder | None = None
    prefix: Prefix | None = None
    survivors: list[torch.Tensor] = field(default_factory=list)
    attended: list[Attended] = field(default_factory=list)

    def run(self) -> torch.Tensor:
        """Run all layers; return the logits of the first answer token, (V,) float32."""
        last = self.task.layers - 1
        for layer in range(last):
            if self.task.alive is not None:
                self.task.alive()
            entered = self.sequence.blocks[-1]
            self.survivors.append(self.sequence.rows.survivors)
            self.sequence = self.sequence.through(partial(self._layer, layer)).add_plane()
            self._record(layer)
            self._select(layer, entered)
        self.survivors.append(self.sequence.rows.survivors)
        return self._last_layer(last)

    def _layer(self, layer: int, block: Block) -> Block:
        hidden = self.task.adapter.layer(layer, block.hidden, block.rotary, self.cache)
        return replace(block, hidden=hidden)

    def _last_layer(self, layer: int) -> torch.Tensor:
        """Run the last layer: all rows but the last need only keys and values."""
        adapter = self.task.adapter
        *before, question = self.sequence.blocks
        for block in (*before, question.but_last()):
            if len(block):
                adapter.cache_kv(layer, block.hidden, block.rotary, self.cache)
        answer = self._layer(layer, question.last())
        self._measure(self._attention(layer, question))
        self._record(layer)
        self._close_prefix(None)
        return adapter.logits(answer.hidden)

    def _select(self, layer: int, entered: Block) -> None:
        """Select the AV tokens that enter the next layer, or reuse an earlier selection."""
        rows, method, plan = self.sequence.rows, self.task.method, self.task.plan
        attention = self._attention(layer, entered)
        self._measure(attention)
        if isinstance(self.sequence, Resumed) and self.sequence.knows(layer + 1):
            self.sequence = self.sequence.follow(layer + 1)
            self._cut_caches(layer, rows)
        elif len(rows.av) and (plan.adaptive or plan.counts[layer + 1] < len(rows.av)):
            with self.task.meter.stage(StageName.SELECTION):
                self.sequence = sequence = self._selectable()
                view = self._view(layer, attention, sequence)
                chosen = method.keep(view, plan.counts[layer + 1])
                entry = chosen if isinstance(chosen, Entry) else Entry(chosen)
                self.sequence = sequence.keep(entry)
                self._cut_caches(layer, rows)

    def _attention(self, layer: int, entered: Block) -> LayerAttention:
        task = self.task
        rows = self.sequence.rows
        return LayerAttention(task.adapter, self.cache, layer, task.prompt, entered, rows)

    def _measure(self, attention: LayerAttention) -> None:
        """Note the attention of a layer that the evidence is read from."""
        reading, prompt = self.task.reading, self.task.prompt
        if attention.layer not in reading.layers or not len(attention.rows.av):
            return
        with self.task.meter.stage(StageName.SELECTION):
            if reading.heads:
                weights = attention.heads(reading.rows)
            else:
                weights = attention.mean(reading.rows)[None]  # the method may have asked for it
            neutral = None
            if reading.correction == "neutral" and prompt.after_clip is not None:
                neutral = attention.heads_of_row(prompt.after_clip)
            self.attended.append(Attended(attention.layer, weights, neutral))

    def _selectable(self) -> Whole | Split:
        """Return the rows to select from; joined if the question takes part."""
        sequence = self.sequence
        if isinstance(sequence, Split):
            if self.task.method.question_free:
                return sequence
            self._close_prefix(
                Handover(
                    sequence.clip, sequence.planes, self.state.fork(), self.generator.get_state()
                )
            )
        return sequence.join()

    def _view(
        self, layer: int, attention: LayerAttention, sequence: Whole | Split
    ) -> DecoderLayerView:
        return DecoderLayerView(
            layer=layer,
            layers=self.task.layers,
            generator=self.generator,
            state=self.state,
            question_free=self.task.method.question_free,
            on_host=bool(self.task.method.needs_host) or self.task.plan.adaptive,
            _attention=attention,
            _sequence=sequence,
        )

    def _cut_caches(self, layer: int, before: Rows) -> None:
        """Cut the caches of the layers run so far to the survivors, under the "cut" policy."""
        after = self.sequence.rows
        if self.task.method.cache == "cut" and len(after) < len(before):
            # Each of these layers was already cut to the rows that entered this one.
            index = torch.searchsorted(before.alive, after.alive)
            for passed in range(layer + 1):
                self.cache.cut(passed, index)

    def _record(self, layer: int) -> None:
        if self.recorder is not None and isinstance(self.sequence, Split):
            self.recorder.layer(layer, len(self.sequence.clip))

    def _close_prefix(self, handover: Handover | None) -> None:
        if self.recorder is not None:
            seed = self.generator.initial_seed()
            unused = torch.Generator().manual_seed(seed).get_state()
            drew = not torch.equal(self.generator.get_state(), unused)
            self.prefix = self.recorder.prefix(self.survivors, handover, seed if drew else None)
            self.recorder = None
