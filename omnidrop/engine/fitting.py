"""Limits instead of a budget: how fast this machine is, and what therefore fits.

    with model.open("clip.mp4") as clip:
        answer = clip.ask("What plays?", limits=omnidrop.Limits(latency=2.0))
    print(answer.trace.notices[-1])      # --fit-latency 2 s: budget 0.18, expected 1.9 s.

Speed is measured once for a model and a method, on a made-up clip of a few seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from omnidrop.clip.values import ClipOptions
from omnidrop.engine.encode import Encoded, encode_clip
from omnidrop.engine.meter import Meter, device_peak, host_peak, resident
from omnidrop.engine.prefill import prefill
from omnidrop.errors import BudgetError
from omnidrop.models.adapter import Adapter
from omnidrop.prompt import Media, Prompt, build_prompt
from omnidrop.pruning.method import Method
from omnidrop.report.cost import prefill_flops
from omnidrop.report.estimate import Sizes, Tokens, peak_bytes
from omnidrop.report.fitting import (
    REMEDY,
    Expected,
    Limits,
    Pace,
    largest,
    line,
    notice,
    size,
)

if TYPE_CHECKING:
    from omnidrop.clip.decode import Clip

#: Chunks of the made-up clips, and a prefill of the smaller above which the larger is not tried.
CHUNKS, PATIENCE = (1, 4), 2.0
#: Budgets at which a method is timed: the first that it can keep.
TIMED_AT = (0.3, 0.5, 0.2, 0.7, 0.1, 1.0)
#: Pixels and rate are lowered by this factor until this budget fits; judged by so many seconds.
SHRINK, ENOUGH, SAMPLE = 0.7, 0.1, 4.0
#: Frames a second are not lowered below this.
LEAST_FPS = 0.25

_paces: WeakKeyDictionary[Adapter, dict[tuple[str, str], Pace]] = WeakKeyDictionary()


def pace(adapter: Adapter, method: Method) -> Pace:
    """Return how fast prefills are here: measured at the first call, remembered after."""
    known = _paces.setdefault(adapter, {})
    settings = {name: value for name, value in method.settings().items() if name != "budget"}
    key = (method.name, repr(settings))
    if key not in known:
        known[key] = _measure(adapter, method)
    return known[key]


def _measure(adapter: Adapter, method: Method) -> Pace:
    points = []
    for chunks in CHUNKS:
        prompt, encoded = _made_up(adapter, chunks)
        seconds = min(_timed(adapter, prompt, encoded, Method())[0] for _ in range(2))
        av = int(prompt.tokens.av.sum())
        counts = (av,) * adapter.info.text.layers
        points.append((prefill_flops(adapter.info.text, len(prompt) - av, counts), seconds))
        if seconds > PATIENCE:
            return Pace(points[-1][0] / seconds)
    chosen = _possible(method, prompt, adapter.info.text.layers)
    choosing = min(_timed(adapter, prompt, encoded, chosen)[1] for _ in range(2))
    return replace(line((points[0], points[1])), choosing=choosing / av)


def _possible(method: Method, prompt: Prompt, layers: int) -> Method:
    """Return the method at a budget that it can keep on a made-up clip."""
    tokens = prompt.tokens.select(prompt.tokens.av)
    for budget in TIMED_AT:
        chosen = replace(method, budget=budget)
        try:
            chosen.plan(tokens, layers)
        except BudgetError:
            continue
        return chosen
    return Method()


def _timed(
    adapter: Adapter, prompt: Prompt, encoded: Encoded, method: Method
) -> tuple[float, float]:
    """Return the seconds that the layers take, and those that choosing takes."""
    meter = Meter(adapter.device)
    prefill(adapter, prompt, encoded, method, meter)
    took = {stage.name: stage.seconds for stage in meter.stages()}
    choosing = took.get("selection", 0.0)
    return took["prefill"] - choosing, took["entry"] + choosing


def _made_up(adapter: Adapter, chunks: int) -> tuple[Prompt, Encoded]:
    """Return a clip of 64 tokens for each second's picture and 25 for its sound, all random."""
    seconds = round(chunks * adapter.layout.seconds_per_chunk)
    side = 8 * adapter.video_spec.merge_size
    media = Media(grid=(seconds, side, side), second_per_grid=1.0, audio_tokens=25 * seconds)
    prompt = build_prompt(adapter.text, adapter.layout, "What can be seen and heard?", media)
    generator = torch.Generator().manual_seed(0)

    def words(count: int) -> torch.Tensor:
        ids = torch.randint(adapter.info.text.vocab, (count,), generator=generator)
        with torch.inference_mode():
            return adapter.embed(ids.to(adapter.device))

    video, audio = 64 * seconds, 25 * seconds
    return prompt, Encoded(
        media=media,
        video=words(video),
        audio=words(audio),
        audio_attention=torch.rand(audio, generator=generator),
        video_attention=torch.rand(video, generator=generator),
    )


def fit(
    adapter: Adapter,
    prompt: Prompt,
    method: Method,
    limits: Limits,
    spent: Callable[[], float],
) -> tuple[Method, str]:
    """Give a method the largest budget that meets the limits.

    Parameters
    ----------
    adapter : Adapter
    prompt : Prompt
        Of the encoded clip and the question.
    method : Method
        Its own budget is not looked at.
    limits : Limits
    spent : callable
        Returns the seconds that the answer took so far.

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
    speed = pace(adapter, method) if limits.latency is not None else None
    held, peak = _memory(adapter.device)
    if limits.memory is not None and peak > limits.memory:
        raise BudgetError(
            f"{limits} cannot be met: {size(peak)} were in use before the language model began, "
            "by its weights, and by opening and encoding the clip.",
            hint=REMEDY,
        )
    expect = _expectation(adapter, prompt, method, limits, speed, spent(), held, peak)
    found = largest(expect, limits)
    return replace(method, budget=found.budget), notice(limits, found)


def _expectation(
    adapter: Adapter,
    prompt: Prompt,
    method: Method,
    limits: Limits,
    speed: Pace | None,
    spent: float,
    held: int,
    peak: int,
) -> Callable[[float], Expected]:
    """Return the function from a budget to what a prefill at it is expected to take."""
    tokens = prompt.tokens.select(prompt.tokens.av)
    shape, text = adapter.info.text, len(prompt) - len(tokens)
    video = int(tokens.video.sum())
    sizes = _sizes(adapter)
    counted = Tokens(text, len(tokens) - video, video, grid=None, counted=True)

    def expect(budget: float) -> Expected:
        counts = replace(method, budget=budget).plan(tokens, shape.layers).counts
        seconds = memory = None
        if speed is not None:
            seconds = spent + speed.seconds(prefill_flops(shape, text, counts), len(tokens))
        if limits.memory is not None:
            lengths = [text + count for count in counts]
            memory = max(peak, held + peak_bytes(sizes, counted, lengths))
        return Expected(budget, seconds, memory)

    return expect


def _sizes(adapter: Adapter) -> Sizes:
    """Return the sizes of a model whose weights are counted as held already."""
    width = torch.empty(0, dtype=adapter.dtype).element_size()
    info, gpu = adapter.info, adapter.device.type == "cuda"
    return Sizes(info.text, info.vision, info.audio, 0, width, gpu)


def _memory(device: torch.device) -> tuple[int, int]:
    """Return the bytes held now and the most held so far, where the model is."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device)), device_peak(device) or 0
    peak = host_peak()
    return resident() or peak, peak


def fit_sampling(
    adapter: Adapter,
    path: str | os.PathLike[str],
    question: str,
    method: Method,
    limits: Limits,
    *,
    clip: ClipOptions | None = None,
    pixels: bool = False,
    fps: bool = False,
    system: str | None = None,
) -> tuple[ClipOptions, str | None]:
    """Lower pixels or rate until a tenth of the tokens can be kept within the limits.

    What opening and encoding take is judged by the clip's first seconds.

    Parameters
    ----------
    adapter : Adapter
    path : path-like
    question : str
    method : Method
    limits : Limits
    clip : ClipOptions, optional
        What is tried first.
    pixels, fps : bool
        What may be lowered.
    system : str, optional

    Returns
    -------
    options : ClipOptions
        The smallest, where nothing fits.
    notice : str or None
        What was chosen, if that is not what was asked for.
    """
    speed = pace(adapter, method) if limits.latency is not None else None
    asked = clip or ClipOptions()
    said = None
    for options in _smaller(adapter, path, asked, pixels, fps):
        media, seconds, tower = _ahead(adapter, path, options)
        prompt = build_prompt(adapter.text, adapter.layout, question, media, system=system)
        held = _memory(adapter.device)[0]
        expect = _expectation(
            adapter, prompt, method, limits, speed, seconds, held, held + tower
        )  # fmt: skip
        if options is not asked:
            chosen = [f"frames of at most {options.max_pixels:,} pixels"] if pixels else []
            chosen += [f"{options.fps:.2g} frames a second"] if fps else []
            said = f"{limits}: {' and '.join(chosen)}."
        try:
            if largest(expect, limits).budget >= ENOUGH:
                break
        except BudgetError:
            continue
    return options, said


def _smaller(
    adapter: Adapter, path: str | os.PathLike[str], asked: ClipOptions, pixels: bool, fps: bool
) -> Iterator[ClipOptions]:
    """Yield what was asked for, then less and less."""
    yield asked
    with _opened(adapter, path, asked) as clip:
        if clip.plan is None:
            return
        area = clip.plan.size[0] * clip.plan.size[1]
    least = asked.min_pixels or adapter.video_spec.min_pixels
    options = asked
    while True:
        before = options
        if pixels:
            area = max(round(area * SHRINK), least)
            options = replace(options, max_pixels=area)
        if fps:
            options = replace(options, fps=max(options.fps * SHRINK, LEAST_FPS))
        if options == before:
            return
        yield options


def _opened(adapter: Adapter, path: str | os.PathLike[str], options: ClipOptions) -> Clip:
    from omnidrop.clip.decode import open_clip

    return open_clip(
        path,
        options,
        video_spec=adapter.video_spec,
        audio_spec=adapter.audio_spec,
        chunk_seconds=adapter.layout.seconds_per_chunk,
    )


def _ahead(
    adapter: Adapter, path: str | os.PathLike[str], options: ClipOptions
) -> tuple[Media, float, int]:
    """Return what of a clip would be in the prompt, and what encoding takes: seconds, bytes."""
    from omnidrop.engine.estimating import media_of

    began = time.perf_counter()
    with _opened(adapter, path, options) as clip:
        opening = time.perf_counter() - began
        media = media_of(clip, adapter)  # type: ignore[arg-type]  # it asks for two specs only
        duration, start = clip.duration, clip.start
        frames = len(clip.plan.times) if clip.plan is not None else 0
    short = replace(options, start=start, end=start + min(SAMPLE, duration))
    took = []
    for _ in range(2):
        with _opened(adapter, path, short) as clip:
            meter = Meter(adapter.device)
            encode_clip(adapter, clip, meter)
            took.append(meter.since_start_done())
            part = len(clip.plan.times) if clip.plan is not None else 0
    times = frames / part if part else duration / min(SAMPLE, duration)
    nothing = Tokens(0, 0, 0, grid=media.grid, counted=True)
    tower = peak_bytes(_sizes(adapter), nothing, [0])
    return media, opening + min(took) * max(times, 1.0), tower
