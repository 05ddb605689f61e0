"""A profiled run seen again: its frames and its sound, and what of both survived to a layer."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from omnidrop.clip.clip import Clip, ClipOptions, open_clip
from omnidrop.clip.overlay import write_changed
from omnidrop.engine.session import Model
from omnidrop.errors import UsageError
from omnidrop.profiling.contact_sheet import dimmed
from omnidrop.profiling.result import RunProfile
from omnidrop.profiling.survivors import (
    ChunkSight,
    Sight,
    Survivors,
    survivors_at,
    telling_layer,
)
from omnidrop.prompt import build_prompt
from omnidrop.tokens import Media

#: Chunks on one contact sheet; of a longer clip, as many evenly spread.
MOST_CHUNKS = 48


def survivors_of(model: Model, run: RunProfile, layer: int | None = None) -> Survivors:
    """Place the tokens of a run that entered a layer.

    Parameters
    ----------
    model : Model
        The one that made the run.
    run : RunProfile
    layer : int, optional
        By default the first that at most half of what entered the first layer reaches.

    Raises
    ------
    UsageError
        If the model has no such layer, or the run's survivors were not kept.
    """
    trace = run.trace
    if layer is None:
        layer = telling_layer(trace.kept_per_layer)
    if layer >= trace.layers:
        raise UsageError(
            f"There is no layer {layer}: the model has {trace.layers}.",
            hint=f"Choose one from 0 to {trace.layers - 1}.",
        )
    if not trace.survivors:
        raise UsageError("The survivors of this run were not kept.", hint="Profile it anew.")
    grid = trace.clip.get("grid")
    media = Media(
        grid=tuple(grid) if grid else None,
        second_per_grid=trace.clip.get("second_per_grid"),
        audio_tokens=trace.audio_tokens,
    )
    adapter = model.adapter
    prompt = build_prompt(
        adapter.text,
        adapter.template,
        str(trace.settings["question"]),
        media,
        system=trace.settings["system"],
    )
    return survivors_at(prompt.tokens, trace.survivors[layer], layer)


def look(
    model: Model,
    path: str | os.PathLike[str],
    run: RunProfile,
    *,
    clip: ClipOptions | None = None,
    layer: int | None = None,
) -> Sight:
    """Gather, chunk by chunk, what a run still looked at and listened to.

    Parameters
    ----------
    model : Model
    path : path-like
        The clip that was profiled.
    run : RunProfile
    clip : ClipOptions, optional
        As the run was made with.
    layer : int, optional
        As in `survivors_of`.

    Returns
    -------
    Sight
        Of at most `MOST_CHUNKS` chunks.
    """
    alive = survivors_of(model, run, layer)
    trace = run.trace
    count = len(trace.chunks)
    shown = sorted({round(i) for i in np.linspace(0, count - 1, min(count, MOST_CHUNKS))})
    with _opened(model, path, clip) as opened:
        frames = _frames(opened, alive, set(shown))
        mel = opened.log_mel() if alive.audio is not None else None
    spectrum = mel.numpy() if mel is not None else None
    per_token = model.adapter.template.mel_per_token
    chunks = []
    for number in shown:
        sounds = spectrum_part = lit = None
        if alive.audio is not None and spectrum is not None:
            places = np.flatnonzero(alive.chunk_of_audio == number)
            sounds = alive.audio[places]
            if len(places):
                first, last = (math.ceil(at * per_token) for at in (places[0], places[-1] + 1))
                spectrum_part = spectrum[:, first:last]
                token = np.arange(first, first + spectrum_part.shape[1]) // per_token
                lit = alive.audio[token.astype(np.int64)]
        frame, patches = frames.get(number, (None, None))
        told = trace.chunks[number]
        chunks.append(
            ChunkSight(
                start=told.start,
                end=told.end,
                frame=frame,
                patches=patches,
                video_kept=told.video[alive.layer],
                video_total=told.video_total,
                mel=spectrum_part,
                sounds=sounds if sounds is not None and len(sounds) else None,
                lit=lit,
            )
        )
    return Sight(run.label, alive.layer, trace.layers, tuple(chunks), count - len(chunks))


def overlay(
    model: Model,
    path: str | os.PathLike[str],
    run: RunProfile,
    target: Path,
    *,
    clip: ClipOptions | None = None,
    layer: int | None = None,
    force: bool = False,
) -> None:
    """Write the clip with what a run had dropped by a layer dimmed, and its sound.

    Parameters
    ----------
    model, path, run, clip, layer
        As in `look`.
    target : Path
        A video file to write: .mp4, .mkv or .mov.
    force : bool
        Replace it if it is there.

    Raises
    ------
    UsageError
        If the clip has no picture, or the file exists or cannot be written.
    """
    alive = survivors_of(model, run, layer)
    kept = alive.video
    if kept is None:
        raise UsageError("There is no picture to write.", path=path, hint="Take a video.")
    step = float(run.trace.clip["second_per_grid"])

    def change(frame: np.ndarray, time: float) -> np.ndarray:
        return dimmed(frame, kept[min(int(time / step), len(kept) - 1)])

    with _opened(model, path, clip) as opened:
        write_changed(opened, target, change, force=force)


def _opened(model: Model, path: str | os.PathLike[str], clip: ClipOptions | None) -> Clip:
    adapter = model.adapter
    return open_clip(
        path,
        clip or ClipOptions(),
        video_spec=adapter.video_spec,
        audio_spec=adapter.audio_spec,
        chunk_seconds=adapter.template.chunk_seconds,
    )


def _frames(
    clip: Clip, alive: Survivors, shown: set[int]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return a frame and its surviving tokens for each chunk: of the grid that kept most."""
    if alive.video is None:
        return {}
    depth = clip.video_spec.temporal_patch_size
    best: dict[int, int] = {}
    for grid, chunk in enumerate(alive.chunk_of_grid.tolist()):
        kept = int(alive.video[grid].sum())
        if chunk in shown and (chunk not in best or kept > alive.video[best[chunk]].sum()):
            best[chunk] = grid
    wanted = {grid * depth: (chunk, grid) for chunk, grid in best.items()}
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    number = 0
    for part in clip.frame_chunks():
        for frame in part.frames:
            if number in wanted:
                chunk, grid = wanted[number]
                found[chunk] = (frame.permute(1, 2, 0).numpy().copy(), alive.video[grid])
            number += 1
    return found
