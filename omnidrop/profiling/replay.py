"""Read a profiled clip again, and show which frames and audio survived to a layer."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from omnidrop.clip.clip import Clip, ClipOptions, open_clip
from omnidrop.clip.overlay import write_changed
from omnidrop.engine.model import Model
from omnidrop.errors import UsageError
from omnidrop.format import share
from omnidrop.profiling.marking import caption, dimmed, enlargement, outlined
from omnidrop.profiling.result import RunProfile
from omnidrop.profiling.survivors import (
    Replay,
    ReplayedChunk,
    Survivors,
    first_halved_layer,
    survivors_at,
)

#: Chunks on one contact sheet; of a longer clip, as many, evenly spread.
MAX_CHUNKS = 48


def survivors_of(run: RunProfile, layer: int | None = None) -> Survivors:
    """Place the tokens of a run that entered a layer on the clip's grids.

    Parameters
    ----------
    run : RunProfile
    layer : int, optional
        Default `first_halved_layer`.

    Raises
    ------
    UsageError
        If the model has no such layer, or the run's survivors were not kept.
    """
    trace = run.trace
    if layer is None:
        layer = first_halved_layer(trace.kept_per_layer)
    if layer >= trace.layers:
        raise UsageError(
            f"There is no layer {layer}: the model has {trace.layers}.",
            hint=f"Choose one from 0 to {trace.layers - 1}.",
        )
    if not trace.survivors or run.tokens is None:
        raise UsageError("The survivors of this run were not kept.", hint="Profile it again.")
    return survivors_at(run.tokens, trace.survivors[layer], layer)


def replay(
    model: Model,
    path: str | os.PathLike[str],
    run: RunProfile,
    *,
    clip: ClipOptions | None = None,
    layer: int | None = None,
) -> Replay:
    """Collect, chunk by chunk, the frames and audio of a clip and what of both survived.

    Parameters
    ----------
    model : Model
    path : path-like
        The clip that was profiled.
    run : RunProfile
    clip : ClipOptions, optional
        Those the run was made with.
    layer : int, optional
        As in `survivors_of`.

    Returns
    -------
    Replay
        Of at most `MAX_CHUNKS` chunks.
    """
    alive = survivors_of(run, layer)
    trace = run.trace
    count = len(trace.chunks)
    shown = sorted({round(i) for i in np.linspace(0, count - 1, min(count, MAX_CHUNKS))})
    with open_clip(path, clip or ClipOptions(), model.adapter.media_spec) as opened:
        frames = _frames(opened, alive, set(shown))
        mel = opened.log_mel() if alive.audio is not None else None
    spectrum = mel.numpy() if mel is not None else None
    per_token = model.adapter.template.mel_per_token
    chunks = []
    for number in shown:
        audio = spectrum_part = lit = None
        if alive.audio is not None and spectrum is not None:
            places = np.flatnonzero(alive.chunk_of_audio == number)
            audio = alive.audio[places]
            if len(places):
                first, last = (math.ceil(at * per_token) for at in (places[0], places[-1] + 1))
                spectrum_part = spectrum[:, first:last]
                frame_number = np.arange(first, first + spectrum_part.shape[1])
                lit = alive.audio[frame_number * per_token.denominator // per_token.numerator]
        frame, patches = frames.get(number, (None, None))
        counts = trace.chunks[number]
        chunks.append(
            ReplayedChunk(
                start=counts.start,
                end=counts.end,
                frame=frame,
                patches=patches,
                video_kept=counts.video[alive.layer],
                video_total=counts.video_total,
                mel=spectrum_part,
                audio=audio if audio is not None and len(audio) else None,
                lit=lit,
                relevance=counts.relevance,
            )
        )
    return Replay(
        run.label,
        alive.layer,
        trace.layers,
        tuple(chunks),
        count - len(chunks),
        question=str(trace.settings.get("question", "")),
        answer=run.answer,
        moments=trace.moments,
    )


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
    """Write the clip with the tokens that a run had dropped by a layer dimmed, and its audio.

    A caption below the picture has question, answer, and what was kept. Pictures too small for it
    are enlarged by a whole factor.

    Parameters
    ----------
    model, path, run, clip, layer
        As in `replay`.
    target : Path
        A video file to write: .mp4, .mkv or .mov.
    force : bool
        Replace an existing file.

    Raises
    ------
    UsageError
        If the clip has no video, or the file exists or cannot be written.
    """
    alive = survivors_of(run, layer)
    kept = alive.video
    if kept is None:
        raise UsageError("There is no video to write.", path=path, hint="Take a video.")
    step = float(run.trace.clip["second_per_grid"])

    below: dict[int, np.ndarray] = {}  # the caption, by the picture's width

    def change(frame: np.ndarray, time: float) -> np.ndarray:
        cells = kept[min(int(time / step), len(kept) - 1)]
        factor = enlargement(frame.shape[1])
        picture = frame.repeat(factor, axis=0).repeat(factor, axis=1)
        marked = outlined(dimmed(picture, cells), cells)
        width = picture.shape[1]
        if width not in below:
            below[width] = caption(width, _said(run, alive.layer))
        return np.concatenate([marked, below[width]])

    with open_clip(path, clip or ClipOptions(), model.adapter.media_spec) as opened:
        write_changed(opened, target, change, force=force)


def _said(run: RunProfile, layer: int) -> list[tuple[str, bool]]:
    """Return the paragraphs of an overlay's caption, and which stand out."""
    question = str(run.trace.settings.get("question", ""))
    budget = f"{run.label}, keeps {share(run.realised, 0)} of all tokens"
    return [
        (question, False),
        (run.answer or "no words", True),
        (f"{budget}. Bright: kept up to layer {layer} of {run.trace.layers}", False),
    ]


def _frames(
    clip: Clip, alive: Survivors, shown: set[int]
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return, for each chunk, the frame of the grid that kept most, and its surviving tokens."""
    if alive.video is None:
        return {}
    depth = clip.spec.video.temporal_patch_size
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
