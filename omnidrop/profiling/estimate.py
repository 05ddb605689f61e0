"""What a question would cost, before any weight is loaded: tokens, FLOPs, memory and time.

    from omnidrop.profiling.estimate import estimate
    print(estimate("clip.mp4", "What plays?", [omnidrop.OmniDrop(budget=0.2)],
                   model=omnidrop.LoadOptions(model="7b"), tflops=400).runs[0].peak)

The file is opened, not decoded. Token counts are exact if the file announces its lengths truly.
Memory is estimated by `peak_bytes`. Times are FLOPs over a speed and so a lower bound: no kernel is
faster, and reading the file comes on top.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch

from omnidrop.clip.clip import Clip, ClipOptions, open_clip
from omnidrop.engine.encode import media_of
from omnidrop.errors import BudgetError
from omnidrop.models.loading import LoadOptions
from omnidrop.models.memory import has_own_memory, memory_free
from omnidrop.models.unloaded import RoughEncoder, Unloaded, describe
from omnidrop.profiling.card import Room, Setup, Start, room
from omnidrop.profiling.machine import device_name, matmul_speed
from omnidrop.prompt import build_prompt, long_position_notice
from omnidrop.pruning.method import Method
from omnidrop.report.model_sizes import described
from omnidrop.resident import held
from omnidrop.shapes import Shapes, with_buffers
from omnidrop.tokens import Prompt

SCHEMA = "omnidrop.estimate/1"

#: Bytes of Python, PyTorch and the other libraries in a process that answers, by
#: `benchmarks/host_memory.py`; one that holds a model already has more.
PROGRAM = 550_000_000

ROUGH_TEXT = "The tokenizer is not on this machine: text tokens are a guess, four letters each."


@dataclass(frozen=True)
class Tokens:
    """Tokens of a prompt.

    Attributes
    ----------
    text, audio, video : int
    grid : tuple of int or None
        (t, h, w) in patches.
    counted : bool
        True if the text was counted by the model's own tokenizer.
    """

    text: int
    audio: int
    video: int
    grid: tuple[int, int, int] | None
    counted: bool

    @classmethod
    def of(
        cls, prompt: Prompt, grid: tuple[int, int, int] | None, *, counted: bool = True
    ) -> Tokens:
        """Count the tokens of a prompt; `grid` and `counted` as in the attributes."""
        av, video = int(prompt.tokens.av.sum()), int(prompt.tokens.video.sum())
        return cls(len(prompt) - av, av - video, video, grid, counted)

    @property
    def av(self) -> int:
        """Audio and video tokens."""
        return self.audio + self.video


@dataclass(frozen=True)
class RunEstimate:
    """One method at one budget.

    Attributes
    ----------
    label, method : str
    budget, realised : float
        As asked, and as the schedule keeps.
    counts : tuple of int, length L
        Audio and video tokens entering each layer.
    flops_prefill : float
    speedup : float
        Of the LLM prefill against keeping everything, by FLOPs.
    kv_cache, peak : int
        Bytes: KV cache after prefill, and the most held at once: weights, and on a CPU the program
        and its libraries, included.
    seconds : float
        To the first token, encoders included.
    """

    label: str
    method: str
    budget: float
    realised: float
    counts: tuple[int, ...]
    flops_prefill: float
    speedup: float
    kv_cache: int
    peak: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """The control and every run.

    Attributes
    ----------
    clip, question : str
    model : dict
        Name, sizes, dtype, device, parameters, bytes of weights.
    tokens : Tokens
    flops_vision, flops_audio : float
        Of the encoders; the same for every run.
    speed : float
        FLOP/s that times are computed with.
    speed_of : str
        Where that speed comes from.
    control : RunEstimate
    runs : tuple of RunEstimate
    notices : tuple of str
    room : Room or None
        Whether a card of a given memory takes the first run.
    """

    clip: str
    question: str
    model: dict[str, Any]
    tokens: Tokens
    flops_vision: float
    flops_audio: float
    speed: float
    speed_of: str
    control: RunEstimate
    runs: tuple[RunEstimate, ...]
    notices: tuple[str, ...] = ()
    room: Room | None = None

    @property
    def all(self) -> tuple[RunEstimate, ...]:
        """The control first, then the runs."""
        return (self.control, *self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain values, ready for JSON, `schema` first."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class Sizes:
    """What the estimate needs of a model.

    Attributes
    ----------
    shapes : Shapes
    weights : int
        Bytes.
    width : int
        Bytes per value of hidden states, keys and values.
    gpu : bool
        Whether it runs on a GPU, where encoder batches are larger.
    program : int
        Bytes of Python and its libraries, where they share the memory of the model.
    buffer : int
        Bytes of the buffer in which matrices are widened.
    """

    shapes: Shapes
    weights: int
    width: int
    gpu: bool = False
    program: int = 0
    buffer: int = 0


def encoder_flops(sizes: Sizes, tokens: Tokens) -> tuple[float, float]:
    """Return the FLOPs of the vision and of the audio encoder."""
    vision = sizes.shapes.vision.flops(tokens.grid) if tokens.grid else 0.0
    return vision, sizes.shapes.audio.flops(tokens.audio) if tokens.audio else 0.0


def run_estimate(
    label: str,
    method: Method,
    counts: Sequence[int],
    sizes: Sizes,
    tokens: Tokens,
    speed: float,
) -> RunEstimate:
    """Estimate one run.

    Parameters
    ----------
    label : str
    method : Method
    counts : sequence of int, length L
        Audio and video tokens entering each layer.
    sizes : Sizes
    tokens : Tokens
    speed : float
        FLOP/s.
    """
    text = sizes.shapes.text
    whole = text.prefill_flops(tokens.text, (tokens.av,) * len(counts))
    own = text.two_way_flops(tokens.text + tokens.av, method.own_layers)
    flops = text.prefill_flops(tokens.text, counts) + own
    lengths = [tokens.text + count for count in counts]
    return RunEstimate(
        label=label,
        method=method.name,
        budget=float(method.budget),
        realised=sum(counts) / (len(counts) * tokens.av) if tokens.av else 1.0,
        counts=tuple(counts),
        flops_prefill=flops,
        speedup=whole / flops,
        kv_cache=text.kv_bytes(lengths, sizes.width),
        peak=peak_bytes(sizes, tokens, lengths, method.own_layers),
        seconds=(flops + sum(encoder_flops(sizes, tokens))) / speed,
    )


def peak_bytes(sizes: Sizes, tokens: Tokens, lengths: Sequence[int], own_layers: int = 0) -> int:
    """Return the most bytes held at once: weights, program, buffer, embeddings, encoder or prefill.

    `Shapes.peak_bytes` says what is held.

    Parameters
    ----------
    sizes : Sizes
    tokens : Tokens
    lengths : sequence of int, length L
        Tokens entering each layer, text included.
    own_layers : int
        `Method.own_layers`.
    """
    besides = sizes.shapes.peak_bytes(
        lengths,
        sizes.width,
        rows=tokens.av + tokens.text,
        video=tokens.video,
        grid=tokens.grid,
        gpu=sizes.gpu,
        own_layers=own_layers,
    )
    return sizes.weights + sizes.program + sizes.buffer + besides


def estimate(
    path: str | os.PathLike[str],
    question: str,
    methods: Sequence[Method],
    *,
    labels: Sequence[str] = (),
    model: LoadOptions | None = None,
    clip: ClipOptions | None = None,
    system: str | None = None,
    tflops: float | None = None,
    memory: float | None = None,
    known: Unloaded | None = None,
) -> Estimate:
    """Estimate tokens, operations, memory and time of the control and of every method.

    Parameters
    ----------
    path : path-like
        A local media file.
    question : str
    methods : sequence of Method
    labels : sequence of str
        Names of the runs; default like "omnidrop 0.2".
    model : LoadOptions, optional
        "3b" and "7b" need not be on this machine.
    clip : ClipOptions, optional
    system : str, optional
    tflops : float, optional
        Speed of the machine in TFLOP/s; by default that of a large matrix product on this one.
    memory : float, optional
        Bytes of a GPU: says whether it would take the first method's run, and what would make it.
    known : Unloaded, optional
        What `describe` said of the model, so that its files are not read again.

    Returns
    -------
    Estimate

    Raises
    ------
    MediaError, UsageError, ModelError, BudgetError
        As opening, loading and planning would.
    """
    options = model or LoadOptions()
    known = known or describe(options)
    with open_clip(path, clip or ClipOptions(), known.media_spec) as opened:
        media = media_of(opened)
        notices = list(opened.notices)
    prompt = build_prompt(known.encoder, known.template, question, media, system=system)
    av = prompt.tokens.select(prompt.tokens.av)
    tokens = Tokens.of(prompt, media.grid, counted=not isinstance(known.encoder, RoughEncoder))
    if not tokens.counted:
        notices.append(ROUGH_TEXT)
    gpu = has_own_memory(torch.device(known.device))
    program = 0 if gpu else min(held().total, PROGRAM)
    sizes = Sizes(known.shapes, known.weights, known.bytes_per_value, gpu, program, known.buffer)
    speed, speed_of = _speed(known, tflops)

    def one(label: str, method: Method) -> RunEstimate:
        counts = method.plan(av, known.shapes.text.layers).counts
        return run_estimate(label, method, counts, sizes, tokens, speed)

    control, runs = one("none", Method()), []
    for label, method in zip(labels or [m.label for m in methods], methods, strict=True):
        try:
            runs.append(one(label, method))
        except BudgetError as error:
            if len(methods) == 1:
                raise
            notices.append(f"{label} cannot be run: {error}")
    if note := long_position_notice(prompt, known.template):
        notices.append(note)
    if tflops is None and memory is None:
        notices += _shortage(known, control)
    found = None
    if memory is not None:
        found = _room(
            memory, opened, question, methods[0] if methods else Method(), options, system
        )
    vision, audio = encoder_flops(sizes, tokens)
    return Estimate(
        clip=os.fspath(path),
        question=question,
        model={
            "name": known.name,
            "here": known.here,
            "device": known.device,
            "dtype": known.dtype,
            "quantization": known.quantization,
            "parameters": known.parameters,
            "weights": known.weights,
            **described(known.shapes),
        },
        tokens=tokens,
        flops_vision=vision,
        flops_audio=audio,
        speed=speed,
        speed_of=speed_of,
        control=control,
        runs=tuple(runs),
        notices=tuple(notices),
        room=found,
    )


def _speed(known: Unloaded, tflops: float | None) -> tuple[float, str]:
    if tflops is not None:
        return tflops * 1e12, "as given"
    device = torch.device(known.device)
    speed = matmul_speed(device, getattr(torch, known.dtype))
    return speed, f"a large {known.dtype} matrix product on this machine ({device_name(device)})"


def _shortage(known: Unloaded, control: RunEstimate) -> list[str]:
    """Return a notice if the unpruned run would not fit here."""
    device = torch.device(known.device)
    free = memory_free(device)
    need = with_buffers(control.peak)
    if need <= free:
        return []
    return [
        f"Unpruned it needs about {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free "
        f"on {known.device}."
    ]


def _room(
    memory: float,
    clip: Clip,
    question: str,
    method: Method,
    options: LoadOptions,
    system: str | None,
) -> Room:
    """Return whether a GPU of so much memory takes a run, and with what it would."""
    dtype = "bfloat16" if options.dtype == "auto" else options.dtype

    @cache
    def model(quantize: str | None) -> Unloaded:
        chosen = quantize or options.quantize
        return describe(replace(options, device="cpu", dtype=dtype, quantize=chosen), card=True)

    def peak_of(setup: Setup) -> int:
        known = model(setup.quantize)
        changes: dict[str, Any] = {}
        if setup.max_pixels is not None:
            changes["max_pixels"] = setup.max_pixels
        if setup.fps is not None:
            changes["fps"] = setup.fps
        if setup.seconds is not None:
            changes["end"] = clip.start + setup.seconds
        media = media_of(clip.replanned(replace(clip.options, **changes), known.media_spec))
        prompt = build_prompt(known.encoder, known.template, question, media, system=system)
        av = prompt.tokens.select(prompt.tokens.av)
        run = method if setup.budget is None else replace(method, budget=setup.budget)
        counts = run.plan(av, known.shapes.text.layers).counts
        tokens = Tokens.of(prompt, media.grid)
        sizes = Sizes(known.shapes, known.weights, known.bytes_per_value, gpu=True)
        lengths = [tokens.text + count for count in counts]
        return peak_bytes(sizes, tokens, lengths, run.own_layers)

    start = Start(
        quantize=options.quantize,
        budget=float(method.budget),
        area=clip.plan.size[0] * clip.plan.size[1] if clip.plan is not None else None,
        least_area=clip.options.min_pixels or clip.spec.video.min_pixels,
        fps=clip.plan.fps if clip.plan is not None else None,
        start=clip.start,
        seconds=clip.duration,
    )
    return room(memory, start, peak_of)
