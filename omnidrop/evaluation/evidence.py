"""Which attention finds the evidence: chosen on half of the clips, checked on the others.

A question of a set may say when its evidence is in the clip (`Item.evidence`). A reading is right
about a question if the strongest moment that it finds overlaps that time. Chance is how often a
moment of the same length at a random place of the same clip would.

Every question is run through the decoder once per method and kind of rows; the attention of every
layer and head is summed per chunk, and all candidates are compared on these sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from omnidrop.engine.evidence import moments
from omnidrop.engine.model import Model
from omnidrop.engine.prefill import Prefilled, prefill
from omnidrop.engine.session import Session
from omnidrop.engine.timing import Meter
from omnidrop.engine.trace_builder import chunk_spans
from omnidrop.errors import BudgetError, UsageError
from omnidrop.evaluation.items import Item, QuestionSet, Style
from omnidrop.evaluation.runner import RunOptions, seed_of, style_of
from omnidrop.evaluation.scoring import ask_text
from omnidrop.evaluation.stats import wilson
from omnidrop.evidence import Correction, EvidenceReading, Rate, Rows
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method, Need

#: Fewer questions than this on one side of the split say too little.
FEWEST = 20

#: Candidates this close to the best margin are as good as it.
CLOSE = 0.01

#: Heads that a candidate may take: this many of those that find most alone.
TOP_HEADS = (1, 2, 4, 8)

Span = tuple[float, float]


@dataclass(frozen=True)
class Seen:
    """Attention of one question under one method, summed per chunk.

    Attributes
    ----------
    clip : Path
    method : str
    budget : float
    chunks : tuple of (float, float)
        Start and end of each of the C chunks, in seconds.
    evidence : tuple of (float, float)
    attention : dict of ndarray, (L, H, C)
        By kind of rows; 0 in layers that no AV token entered.
    neutral : ndarray, (L, H, C)
        Of the text row between clip and question.
    alive : ndarray, (L, C)
        AV tokens that entered each layer.
    """

    clip: Path
    method: str
    budget: float
    chunks: tuple[Span, ...]
    evidence: tuple[Span, ...]
    attention: dict[Rows, np.ndarray]
    neutral: np.ndarray
    alive: np.ndarray

    def shares(self, reading: EvidenceReading) -> np.ndarray | None:
        """Return each chunk's share under a reading, (C,); None where it finds nothing.

        The same as the engine computes, from sums per chunk; for the correction "neutral" it
        subtracts the sums, the engine token by token.
        """
        found = np.zeros(len(self.chunks))
        heads = list(reading.heads) or slice(None)
        for layer in reading.layers:
            part = _share(self.attention[reading.rows][layer][heads].mean(0))
            if reading.correction == "neutral":
                neutral = _share(self.neutral[layer][heads].mean(0))
                part = _share(np.maximum(part - neutral, 0))
            elif reading.correction == "per token":
                part = part / np.maximum(self.alive[layer], 1)
            found += part
        return _share(found) if found.sum() > 0 else None


@dataclass(frozen=True)
class Judged:
    """Whether the strongest moment overlaps the evidence, its chance, and the evidence's share."""

    hit: bool
    chance: float
    share: float


def overlaps(span: Span, evidence: Sequence[Span]) -> bool:
    """Return whether a span of time has some in common with the evidence."""
    return any(min(span[1], end) > max(span[0], start) for start, end in evidence)


def judge(seen: Seen, shares: Sequence[float] | None) -> Judged:
    """Judge one question by its strongest moment; one without a moment is a miss at chance 0."""
    strongest = moments(seen.chunks, shares) if shares is not None else ()
    if shares is None or not strongest:
        return Judged(False, 0.0, 0.0)
    moment = strongest[0]
    inside = [i for i, (start, end) in enumerate(seen.chunks) if moment.start <= start < moment.end]
    count = len(inside)
    places = range(len(seen.chunks) - count + 1)
    at_random = [
        overlaps((seen.chunks[i][0], seen.chunks[i + count - 1][1]), seen.evidence) for i in places
    ]
    held = sum(s for s, c in zip(shares, seen.chunks, strict=True) if overlaps(c, seen.evidence))
    hit = overlaps((moment.start, moment.end), seen.evidence)
    return Judged(hit, sum(at_random) / len(at_random), held)


def rate(method: str, budget: float, judged: Sequence[Judged]) -> Rate:
    """Return how often a reading was right, with Wilson's interval, and chance."""
    hits = sum(one.hit for one in judged)
    low, high = wilson(hits, len(judged))
    chance = sum(one.chance for one in judged) / len(judged) if judged else 0.0
    return Rate(method, budget, len(judged), hits, round(low, 4), round(high, 4), round(chance, 4))


def with_evidence(questions: QuestionSet) -> QuestionSet:
    """Return the questions whose evidence has a time.

    Raises
    ------
    UsageError
        If there are too few for a search and a check.
    """
    known = [item for item in questions.items if item.evidence]
    if len(known) < 2 * FEWEST:
        raise UsageError(
            f"{len(known)} questions say when their evidence is; {2 * FEWEST} are too few to "
            "choose by and to check."
            if known
            else "No question says when its evidence is.",
            path=questions.source,
            hint='Give the times in seconds: "evidence": [[3.5, 6.0]].',
        )
    return questions.part(known)


def halves(questions: QuestionSet) -> tuple[list[Item], list[Item]]:
    """Return the questions of every other clip, and those of the others.

    Raises
    ------
    UsageError
        If one of the two has too few.
    """
    first = set(questions.videos[::2])
    chosen_by = [item for item in questions.items if item.video in first]
    checked = [item for item in questions.items if item.video not in first]
    if min(len(chosen_by), len(checked)) < FEWEST:
        raise UsageError(
            f"Half of the clips have {len(chosen_by)} questions with a time, the others "
            f"{len(checked)}; each half needs {FEWEST}.",
            path=questions.source,
            hint="Ask about more clips.",
        )
    return chosen_by, checked


def collect(
    model: Model,
    items: Sequence[Item],
    methods: Sequence[Method],
    options: RunOptions,
    *,
    style: Style,
    rows: Sequence[Rows] = ("last", "question"),
    reading: EvidenceReading | None = None,
    on_pass: Callable[[], None] | None = None,
) -> list[Seen]:
    """Run questions through the decoder and sum the attention per chunk.

    A method that cannot reach its budget on a clip gives nothing for the question.

    Parameters
    ----------
    model : Model
    items : sequence of Item
        With evidence.
    methods : sequence of Method
    options : RunOptions
        Sampling, system prompt and seed.
    style : {"plain", "letters"}
        How questions with choices are put.
    rows : sequence of {"last", "question"}
        Kinds of rows to note.
    reading : EvidenceReading, optional
        Note only what this takes; by default every layer and head.
    on_pass : callable, optional
        Called before every pass of a question through the decoder.
    """
    text = model.info.text
    wide = reading or EvidenceReading(
        tuple(range(text.layers)), heads=tuple(range(text.heads)), correction="neutral"
    )
    found = []
    for clip, asked in _by_clip(items):
        with model.open(clip, asked[0].clip_options(options.clip)) as session:
            for method in methods:
                for item in asked:
                    seen = _seen(session, item, method, options, style, rows, wide, on_pass)
                    if seen is not None:
                        found.append(seen)
    return found


def _by_clip(items: Sequence[Item]) -> Iterator[tuple[Path, list[Item]]]:
    groups: dict[tuple[Path, float | None, float | None], list[Item]] = {}
    for item in items:
        groups.setdefault((item.video, item.start, item.end), []).append(item)
    for (clip, _, _), asked in groups.items():
        yield clip, asked


def _seen(
    session: Session,
    item: Item,
    method: Method,
    options: RunOptions,
    style: Style,
    rows: Sequence[Rows],
    wide: EvidenceReading,
    on_pass: Callable[[], None] | None,
) -> Seen | None:
    adapter, text = session.adapter, session.info.text
    encoded = session.encode(video_attention=Need.VIDEO_ATTENTION in method.wants)
    prompt = build_prompt(
        adapter.text,
        adapter.template,
        ask_text(item, style),
        encoded.media,
        system=options.system,
    )
    chunk, count = prompt.tokens.chunk, prompt.tokens.chunks
    shape = (text.layers, text.heads, count)
    attention: dict[Rows, np.ndarray] = {}
    for kind in rows:
        if on_pass is not None:
            on_pass()
        try:
            prefilled = prefill(
                adapter,
                prompt,
                encoded,
                method,
                Meter(adapter.device),
                seed=seed_of(item, options.seed),
                reading=replace(wide, rows=kind),
            )
        except BudgetError:
            return None
        attention[kind] = _per_chunk(prefilled, chunk, shape, neutral=False)
    alive = np.stack(
        [
            torch.bincount(chunk[index].long(), minlength=count).numpy()
            for index in prefilled.survivors
        ]
    )
    return Seen(
        clip=item.video,
        method=method.name,
        budget=float(method.budget),
        chunks=tuple(chunk_spans(count, adapter.template.chunk_seconds, session.clip)),
        evidence=item.evidence,
        attention=attention,
        neutral=_per_chunk(prefilled, chunk, shape, neutral=True),
        alive=alive,
    )


def _per_chunk(
    prefilled: Prefilled, chunk: torch.Tensor, shape: tuple[int, int, int], *, neutral: bool
) -> np.ndarray:
    sums = torch.zeros(shape)
    for one in prefilled.attended:
        values = one.neutral if neutral else one.weights
        if values is not None:
            index = chunk[prefilled.survivors[one.layer]].long()
            sums[one.layer].index_add_(1, index, values.cpu().expand(shape[1], -1))
    return sums.numpy()


def candidates(seen: Sequence[Seen]) -> Iterator[EvidenceReading]:
    """Yield the readings that are compared: every layer, rows, correction, and sets of heads.

    Sets of heads are all, and those that find most alone in their layer and rows.
    """
    layers, heads, _ = next(iter(seen[0].attention.values())).shape
    for rows in seen[0].attention:
        for layer in range(layers):
            alone = [
                margin(seen, EvidenceReading((layer,), rows, (head,))) for head in range(heads)
            ]
            order = sorted(range(heads), key=lambda head: alone[head], reverse=True)
            sets = [(), *(tuple(sorted(order[:n])) for n in TOP_HEADS if n < heads)]
            for chosen in sets:
                for correction in get_args(Correction):
                    yield EvidenceReading((layer,), rows, chosen, correction)


def choose(seen: Sequence[Seen]) -> EvidenceReading:
    """Return the candidate with the best margin over chance.

    Of those within a point of it the one without a correction, if there is one, and then the one
    whose attention lies most on the evidence.
    """
    marked = [(*margin(seen, reading), reading) for reading in candidates(seen)]
    best = max(above for above, _, _ in marked)
    close = [(share, reading) for above, share, reading in marked if above >= best - CLOSE]
    return max(close, key=lambda one: (one[1].correction == "none", one[0]))[1]


def calibrate_reading(
    model: Model,
    questions: QuestionSet,
    methods: Sequence[Method],
    options: RunOptions,
    *,
    on_pass: Callable[[], None] | None = None,
) -> EvidenceReading:
    """Choose a reading on half of a set's clips, and measure it on the others.

    Parameters
    ----------
    model : Model
    questions : QuestionSet
        Each with evidence; see `with_evidence`.
    methods : sequence of Method
        The candidates' margins are means over these; each gets its own rate.
    options : RunOptions
        Sampling, style, system prompt and seed.
    on_pass : callable, optional
        Called before every pass of a question through the decoder.

    Raises
    ------
    UsageError
        If no method can reach its budget on the clips.
    """
    style: Style = style_of(options, questions, model)
    first, others = halves(questions)
    found = collect(model, first, methods, options, style=style, on_pass=on_pass)
    if not found:
        raise UsageError(
            "The method cannot reach this budget on these clips.", hint="Give a higher --budget."
        )
    reading = choose(found)
    checked = collect(
        model,
        others,
        methods,
        options,
        style=style,
        rows=[reading.rows],
        reading=reading,
        on_pass=on_pass,
    )
    source = f"{questions.name}, {len({one.clip for one in checked})} clips that chose nothing"
    return reading.with_rates(measure(checked, reading), source)


def measure(seen: Sequence[Seen], reading: EvidenceReading) -> tuple[Rate, ...]:
    """Return how often a reading was right, for each method and budget."""
    groups: dict[tuple[str, float], list[Judged]] = {}
    for one in seen:
        group = groups.setdefault((one.method, one.budget), [])
        group.append(judge(one, _listed(one.shares(reading))))
    return tuple(rate(method, budget, judged) for (method, budget), judged in groups.items())


def margin(seen: Sequence[Seen], reading: EvidenceReading) -> tuple[float, float]:
    """Return hits less chance, and the evidence's share of the attention, both means over all."""
    judged = [judge(one, _listed(one.shares(reading))) for one in seen]
    above = sum(one.hit - one.chance for one in judged) / len(judged)
    return above, sum(one.share for one in judged) / len(judged)


def _listed(shares: np.ndarray | None) -> list[float] | None:
    return None if shares is None else shares.tolist()


def _share(values: np.ndarray) -> np.ndarray:
    total = values.sum()
    return values / total if total > 0 else values
