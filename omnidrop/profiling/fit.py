"""What fits into limits: the largest budget, and a lower sampling if the budget would be too small.

A prefill's time is predicted from its FLOPs and the measured `prefill_speed`, its memory from the
model's sizes (`omnidrop.profiling.estimate.peak_bytes`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omnidrop.clip.clip import Clip, open_clip
from omnidrop.clip.options import ClipOptions
from omnidrop.engine.encode import encode_clip, media_of
from omnidrop.engine.memory import in_use
from omnidrop.engine.timing import Meter
from omnidrop.errors import BudgetError
from omnidrop.format import rounded_duration, rounded_size
from omnidrop.models.adapter import Adapter
from omnidrop.models.memory import has_own_memory
from omnidrop.profiling.estimate import Sizes, Tokens, peak_bytes
from omnidrop.profiling.prefill_speed import PrefillSpeed, prefill_speed
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.shapes import with_buffers
from omnidrop.tokens import Media, Prompt

if TYPE_CHECKING:
    from omnidrop.profiling.limits import Limits

#: Budgets are searched in steps of 1 / STEPS.
STEPS = 100
#: Factor by which pixels and rate are lowered at each try.
SHRINK = 0.7
#: Budget that is large enough: sampling is lowered until it is reached.
ENOUGH_BUDGET = 0.1
#: Seconds of the clip that are encoded to predict the encoding time.
SAMPLE_SECONDS = 4.0
#: Frames per second below which the rate is not lowered.
LEAST_FPS = 0.25

REMEDY = "Lower --max-pixels or --fps, ask about a shorter span, or give --fit-pixels."


@dataclass(frozen=True)
class Expected:
    """What a budget is expected to take; None for what has no limit.

    Attributes
    ----------
    budget : float
    latency : float or None
        Seconds to the first token.
    memory : float or None
        Bytes.
    """

    budget: float
    latency: float | None = None
    memory: float | None = None

    def meets(self, limits: Limits) -> bool:
        """Whether it is within every limit."""
        return all(
            limit is None or (value is not None and value <= limit)
            for value, limit in ((self.latency, limits.latency), (self.memory, limits.memory))
        )

    def __str__(self) -> str:
        parts = [] if self.latency is None else [rounded_duration(self.latency)]
        parts += [] if self.memory is None else [rounded_size(self.memory)]
        return " and ".join(parts)


def largest(
    expect: Callable[[float], Expected], limits: Limits, *, ceiling: float = 1.0
) -> Expected:
    """Return the largest budget that meets the limits, in steps of 1 / `STEPS`.

    Parameters
    ----------
    expect : callable
        From a budget to what it takes, which must not decrease with the budget. Raises BudgetError
        for a budget that the method cannot reach.
    limits : Limits
    ceiling : float
        No budget above this.

    Raises
    ------
    BudgetError
        If even the smallest budget that the method can reach takes too much; names how much.
    """
    known: dict[int, Expected | None] = {}

    def at(step: int) -> Expected | None:
        if step not in known:
            try:
                known[step] = expect(step / STEPS)
            except BudgetError:
                known[step] = None
        return known[step]

    top = max(1, math.floor(ceiling * STEPS + 1e-9))
    best: Expected | None = None
    low, high = 0, top + 1  # the answer is `best`, or a step between `low` and `high`
    while high - low > 1:
        middle = top if high > top else (low + high) // 2
        step = next((s for s in range(middle, low, -1) if at(s) is not None), None)
        found = None if step is None else at(step)
        if step is None or found is None:
            low = middle
        elif found.meets(limits):
            best, low = found, middle
        else:
            high = step
    if best is not None:
        return best
    least = next((found for step in range(1, top + 1) if (found := at(step)) is not None), None)
    if least is None:
        expect(top / STEPS)  # raises the method's own error
        raise BudgetError(f"No budget up to {ceiling:g} can be reached.")
    raise BudgetError(
        f"{limits} cannot be met: even a budget of {least.budget:g} is expected to take {least}.",
        reachable=(least.budget, top / STEPS),
        hint=REMEDY,
    )


def notice(limits: Limits, found: Expected) -> str:
    """Return what was chosen: "--fit-latency 2 s: budget 0.18, expected 1.9 s."."""
    return f"{limits}: budget {found.budget:g}, expected {found}."


def choose_budget(
    adapter: Adapter,
    prompt: Prompt,
    method: Method,
    limits: Limits,
    elapsed: Callable[[], float],
) -> tuple[Method, str]:
    """Return the method at the largest budget that meets the limits.

    Parameters
    ----------
    adapter : Adapter
    prompt : Prompt
        Of the encoded clip and the question.
    method : Method
        Its own budget is ignored.
    limits : Limits
    elapsed : callable
        Returns the seconds that the answer has taken so far.

    Returns
    -------
    method : Method
    notice : str
        What was chosen, and what it is expected to take.

    Raises
    ------
    BudgetError
        If no budget of the method meets them.
    """
    speed = prefill_speed(adapter, method) if limits.latency is not None else None
    held, peak = in_use(adapter) if limits.memory is not None else (0, 0)
    if limits.memory is not None and peak > limits.memory:
        raise BudgetError(
            f"{limits} cannot be met: {rounded_size(peak)} were in use before the language model "
            "began, by its weights, and by opening and encoding the clip.",
            hint=REMEDY,
        )
    expect = _expectation(adapter, prompt, method, limits, speed, elapsed(), held, peak)
    found = largest(expect, limits)
    return replace(method, budget=found.budget), notice(limits, found)


def _expectation(
    adapter: Adapter,
    prompt: Prompt,
    method: Method,
    limits: Limits,
    speed: PrefillSpeed | None,
    elapsed: float,
    held: int,
    peak: int,
) -> Callable[[float], Expected]:
    """Return a function from a budget to what a prefill at that budget is expected to take."""
    tokens = prompt.tokens.select(prompt.tokens.av)
    shape, counted = adapter.info.text, Tokens.of(prompt, grid=None)
    text, sizes = counted.text, _sizes(adapter)

    def expect(budget: float) -> Expected:
        counts = replace(method, budget=budget).plan(tokens, shape.layers).counts
        seconds = memory = None
        if speed is not None:
            seconds = elapsed + speed.seconds(shape.prefill_flops(text, counts), len(tokens))
        if limits.memory is not None:
            lengths = [text + count for count in counts]
            need = peak_bytes(sizes, counted, lengths, method.own_layers)
            memory = max(peak, held + with_buffers(need))
        return Expected(budget, seconds, memory)

    return expect


def _sizes(adapter: Adapter) -> Sizes:
    """Return a model's sizes with no weights: these are in memory already."""
    gpu = has_own_memory(adapter.device)
    buffer = adapter.weights.buffer_bytes
    return Sizes(adapter.info.shapes, 0, adapter.dtype.itemsize, gpu, buffer=buffer)


def fit_sampling(
    adapter: Adapter,
    source: str | os.PathLike[str] | Clip,
    question: str,
    method: Method,
    limits: Limits,
    *,
    clip: ClipOptions | None = None,
    pixels: bool = False,
    fps: bool = False,
    system: str | None = None,
) -> tuple[ClipOptions, str | None]:
    """Lower pixels or rate until a budget of `ENOUGH_BUDGET` fits the limits.

    The time of opening and encoding is predicted from the clip's first `SAMPLE_SECONDS`.

    Parameters
    ----------
    adapter : Adapter
    source : path-like or Clip
        A clip is not probed again.
    question : str
    method : Method
    limits : Limits
    clip : ClipOptions, optional
        What is tried first; default the clip's own options.
    pixels, fps : bool
        What may be lowered.
    system : str, optional

    Returns
    -------
    options : ClipOptions
        The lowest sampling, if nothing fits.
    notice : str or None
        What was chosen, if it is not what was asked for. Hand it to `Model.open`.
    """
    speed = prefill_speed(adapter, method) if limits.latency is not None else None
    opened = (
        source.replanned(clip, adapter.media_spec)
        if isinstance(source, Clip)
        else open_clip(source, clip or ClipOptions(), adapter.media_spec)
    )
    notice = None
    with opened:
        for options in _lower_samplings(opened, pixels, fps):
            media, seconds, encoder = predict_encoding(adapter, opened.replanned(options))
            prompt = build_prompt(adapter.text, adapter.template, question, media, system=system)
            held = in_use(adapter)[0] if limits.memory is not None else 0
            expect = _expectation(
                adapter, prompt, method, limits, speed, seconds, held, held + encoder
            )  # fmt: skip
            if options is not opened.options:
                chosen = [f"frames of at most {options.max_pixels:,} pixels"] if pixels else []
                if fps and options.fps is not None:
                    chosen.append(f"{options.fps:.2g} frames a second")
                notice = f"{limits}: {' and '.join(chosen)}."
            try:
                if largest(expect, limits).budget >= ENOUGH_BUDGET:
                    break
            except BudgetError:
                continue
    return options, notice


def _lower_samplings(clip: Clip, pixels: bool, fps: bool) -> Iterator[ClipOptions]:
    """Yield the clip's own options, then lower and lower ones."""
    options = clip.options
    yield options
    rate = options.fps or clip.spec.video.fps
    if clip.plan is None:
        return
    area = clip.plan.size[0] * clip.plan.size[1]
    least = options.min_pixels or clip.spec.video.min_pixels
    while True:
        before = options
        if pixels:
            area = max(round(area * SHRINK), least)
            options = replace(options, max_pixels=area)
        if fps:
            rate = max(rate * SHRINK, LEAST_FPS)
            options = replace(options, fps=rate)
        if options == before:
            return
        yield options


def predict_encoding(adapter: Adapter, clip: Clip) -> tuple[Media, float, int]:
    """Predict what encoding a clip takes, from its first seconds.

    Returns
    -------
    media : Media
        What of the clip would be in the prompt.
    seconds : float
        To open and encode the whole clip.
    encoder : int
        Bytes that the vision encoder holds at once.
    """
    media = media_of(clip)
    length = min(SAMPLE_SECONDS, clip.duration)
    first = replace(clip.options, start=clip.start, end=clip.start + length)
    if clip.plan is not None:
        with clip.replanned(first) as beginning:
            if beginning.plan is not None and beginning.plan.size != clip.plan.size:
                # A short clip may have larger frames; those of the whole are to be timed.
                first = replace(first, max_pixels=clip.plan.size[0] * clip.plan.size[1])
    frames = len(clip.plan.times) if clip.plan is not None else 0
    seconds, part = [], 0
    for _ in range(2):
        with clip.replanned(first) as beginning:
            meter = Meter(adapter.device)
            encode_clip(adapter, beginning, meter)
            seconds.append(meter.since_start_done())
            part = len(beginning.plan.times) if beginning.plan is not None else 0
    times = frames / part if part else clip.duration / length
    no_text = Tokens(0, 0, 0, grid=media.grid, counted=True)
    encoder = with_buffers(peak_bytes(_sizes(adapter), no_text, [0]))
    return media, clip.seconds_to_open + min(seconds) * max(times, 1.0), encoder
