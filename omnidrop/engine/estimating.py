"""What a question about a clip would cost, before any weight is loaded.

    from omnidrop.engine.estimating import estimate
    print(estimate("clip.mp4", "What plays?", [omnidrop.OmniDrop(budget=0.2)],
                   model=omnidrop.LoadOptions(model="7b"), tflops=400).runs[0].peak)

The file is opened, not decoded. Token counts are exact where the file tells its length truly.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict

import torch

from omnidrop.clip.decode import Clip, ClipOptions, open_clip
from omnidrop.clip.features import audio_token_count
from omnidrop.engine.meter import matmul_speed
from omnidrop.engine.profiling import label_of
from omnidrop.errors import BudgetError
from omnidrop.models.loading import LoadOptions
from omnidrop.models.memory import device_memory_free, host_memory_free
from omnidrop.models.sketch import RoughEncoder, Sketch, sketch
from omnidrop.prompt import Media, build_prompt, long_position_notice
from omnidrop.pruning.method import Method
from omnidrop.report.estimate import (
    Estimate,
    RunEstimate,
    Sizes,
    Tokens,
    run_estimate,
    tower_costs,
)

ROUGH = "The tokenizer is not on this machine: text tokens are a guess, four letters each."


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
) -> Estimate:
    """Estimate tokens, operations, memory and time of the control and of every method.

    Parameters
    ----------
    path : path-like
        A local media file.
    question : str
    methods : sequence of Method
    labels : sequence of str
        What to call their runs; by default like "omnidrop 0.2".
    model : LoadOptions, optional
        "3b" and "7b" need not be on this machine.
    clip : ClipOptions, optional
    system : str, optional
    tflops : float, optional
        Speed of the machine meant, in TFLOP/s; by default a large matrix product is timed on this
        one.

    Returns
    -------
    Estimate

    Raises
    ------
    MediaError, UsageError, ModelError, BudgetError
        As opening, loading and planning would.
    """
    known = sketch(model or LoadOptions())
    with open_clip(
        path,
        clip or ClipOptions(),
        video_spec=known.video_spec,
        audio_spec=known.audio_spec,
        chunk_seconds=known.layout.seconds_per_chunk,
    ) as opened:
        media = media_of(opened, known)
        notices = list(opened.notices)
    prompt = build_prompt(known.encoder, known.layout, question, media, system=system)
    av = prompt.tokens.select(prompt.tokens.av)
    video = int(av.video.sum())
    tokens = Tokens(
        text=len(prompt) - len(av),
        audio=len(av) - video,
        video=video,
        grid=media.grid,
        counted=not isinstance(known.encoder, RoughEncoder),
    )
    if not tokens.counted:
        notices.append(ROUGH)
    sizes = Sizes(
        known.text,
        known.vision,
        known.audio,
        known.weights,
        known.bytes_per_value,
        torch.device(known.device).type == "cuda",
    )
    speed, speed_of = _speed(known, tflops)

    def one(label: str, method: Method) -> RunEstimate:
        counts = method.plan(av, known.text.layers).counts
        return run_estimate(label, method.name, float(method.budget), counts, sizes, tokens, speed)

    control, runs = one("none", Method()), []
    for label, method in zip(labels or map(label_of, methods), methods, strict=True):
        try:
            runs.append(one(label, method))
        except BudgetError as error:
            if len(methods) == 1:
                raise
            notices.append(f"{label} cannot be run: {error}")
    if note := long_position_notice(prompt):
        notices.append(note)
    if tflops is None:
        notices += _room(known, control)
    vision, audio = tower_costs(sizes, tokens)
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
            "text": asdict(known.text),
            "vision": asdict(known.vision),
            "audio": asdict(known.audio),
        },
        tokens=tokens,
        flops_vision=vision,
        flops_audio=audio,
        speed=speed,
        speed_of=speed_of,
        control=control,
        runs=tuple(runs),
        notices=tuple(notices),
    )


def media_of(clip: Clip, known: Sketch) -> Media:
    """Return what of a clip would be in the prompt, from its plan and its announced lengths."""
    grid = step = None
    if clip.plan is not None:
        depth, patch = known.video_spec.temporal_patch_size, known.video_spec.patch_size
        height, width = clip.plan.size
        grid = (-(-len(clip.plan.times) // depth), height // patch, width // patch)
        step = depth / clip.plan.fps
    audio = 0
    if clip.has_audio:
        info, track = clip.sound_source
        seconds = clip.duration
        if track.duration is not None:
            end = track.start - info.start + track.duration
            seconds = min(end, clip.start + clip.duration) - clip.start
        samples = math.ceil(round(seconds * known.audio_spec.sampling_rate, 3))
        audio = audio_token_count(-(-samples // known.audio_spec.hop))
    return Media(grid=grid, second_per_grid=step, audio_tokens=audio)


def _speed(known: Sketch, tflops: float | None) -> tuple[float, str]:
    if tflops is not None:
        return tflops * 1e12, "as given"
    device = torch.device(known.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    speed = matmul_speed(device, getattr(torch, known.dtype))
    return speed, f"a large {known.dtype} matrix product on this machine ({name})"


def _room(known: Sketch, control: RunEstimate) -> list[str]:
    """Return a notice if the unpruned run would not fit here."""
    device = torch.device(known.device)
    free = device_memory_free(device) if device.type == "cuda" else host_memory_free()
    if free is None or control.peak <= free:
        return []
    return [
        f"Unpruned it needs about {control.peak / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free "
        f"on {known.device}."
    ]
