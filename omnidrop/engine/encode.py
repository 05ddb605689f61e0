"""A clip → embeddings of its frames and sound, once, for any number of questions.

The towers' attention never crosses a chunk (2 s of sound, one temporal grid of video), so they run
chunk by chunk, and no more than some seconds of pixels are ever held. Where the tower has a device
of its own, a thread decodes frames while it works on those before; where it computes on the
processors that decoding needs, too, both only get in each other's way, and take turns. Another
thread reads the sound meanwhile. A grid whose pixels were met before is not encoded again: the rows
it got then are its rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from omnidrop.clip.ahead import Ahead
from omnidrop.clip.features import audio_token_count
from omnidrop.engine.meter import Meter
from omnidrop.engine.reading import (
    AHEAD,
    AHEAD_GPU,
    TOGETHER_GPU,
    Grids,
    SoundAhead,
    all_ready,
    grids_beside,
    grids_in_rounds,
)
from omnidrop.errors import MediaError
from omnidrop.models.adapter import Adapter
from omnidrop.moving import moved
from omnidrop.prompt import Media

if TYPE_CHECKING:  # ready features need no media library
    from omnidrop.clip.decode import Clip

#: Processors that reading needs for itself, to go on beside towers that run on processors too.
READERS = 3

#: Called with (stage, done, total or None); what a progress bar needs.
Progress = Callable[[str, float, float | None], None]


@dataclass(frozen=True)
class Features:
    """Ready features, for use without any media library.

    Attributes
    ----------
    patches : Tensor or None, (t·h·w, 3·2·14·14) float32
        Normalised patches in the reference processor's order.
    grid : tuple of int or None
        (t, h, w) in patches.
    second_per_grid : float or None
        Seconds between temporal grids: 2 / true fps.
    mel : Tensor or None, (n_mels, F) float32
        Log-mel at 100 frames a second.
    """

    patches: torch.Tensor | None = None
    grid: tuple[int, int, int] | None = None
    second_per_grid: float | None = None
    mel: torch.Tensor | None = None


@dataclass(frozen=True)
class Encoded:
    """Embeddings of one clip, reusable across questions.

    Attributes
    ----------
    media : Media
        Grid, seconds per grid and number of audio tokens, for the prompt.
    video : Tensor or None, (Nv, D)
        Video embeddings in the order of time, then rows, then columns.
    audio : Tensor or None, (Na, D)
        Audio embeddings in the order of time.
    audio_attention : Tensor or None, (Na,) float32
        Attention each audio token received in the audio tower's last layer.
    video_attention : Tensor or None, (Nv,) float32
        The same for video tokens and the vision tower, where it was asked for.
    repeated_grids : int
        Temporal grids that were not encoded because their pixels had been met before.
    """

    media: Media
    video: torch.Tensor | None
    audio: torch.Tensor | None
    audio_attention: torch.Tensor | None
    video_attention: torch.Tensor | None = None
    repeated_grids: int = 0

    def in_prompt_order(self, video_mask: torch.Tensor) -> torch.Tensor:
        """Interleave both as the prompt does.

        Parameters
        ----------
        video_mask : Tensor, (N,) bool
            True where the prompt's AV token is video, False where it is audio.

        Returns
        -------
        Tensor, (N, D)
        """
        parts = [part for part in (self.video, self.audio) if part is not None]
        if len(parts) == 1:
            return parts[0]
        device = parts[0].device
        mixed = parts[0].new_empty((sum(len(p) for p in parts), parts[0].shape[-1]))
        for mask, part in zip((video_mask, ~video_mask), parts, strict=True):
            # Indices found on the host: a mask would make the host wait for the device.
            mixed.index_copy_(0, moved(mask.nonzero().squeeze(1), device), part)
        return mixed


def encode_clip(
    adapter: Adapter,
    clip: Clip,
    meter: Meter,
    progress: Progress | None = None,
    *,
    video_attention: bool = False,
) -> Encoded:
    """Decode a clip and run both towers over it.

    Parameters
    ----------
    adapter : Adapter
        The model.
    clip : Clip
        An open clip.
    meter : Meter
        Receives the stages' times.
    progress : callable, optional
        Told (stage, done, total) as work goes on.
    video_attention : bool
        Also gather the attention that video tokens received.

    Raises
    ------
    MediaError
        If neither a picture nor a sound long enough for one token can be decoded.
    """
    tell = progress or _silent
    sound = SoundAhead(clip, meter) if clip.has_audio else None
    try:
        seen = _pictures(adapter, clip, meter, tell, video_attention) if clip.has_video else None
        heard = _sound(adapter, meter, tell, sound) if sound else None
    finally:
        if sound is not None:
            sound.close()
    if seen is None and heard is None:
        raise MediaError(
            "There is nothing to look at or listen to in the asked span.",
            path=clip.path,
            hint="A sound must last at least 0.04 s; see `omnidrop chunks` for what is there.",
        )
    fps = clip.plan.fps if clip.plan is not None else None
    depth = adapter.video_spec.temporal_patch_size
    media = Media(
        grid=seen.grid if seen else None,
        second_per_grid=depth / fps if seen and fps else None,
        audio_tokens=len(heard[0]) if heard else 0,
    )
    return Encoded(
        media=media,
        video=seen.embeds if seen else None,
        audio=heard[0] if heard else None,
        audio_attention=heard[1] if heard else None,
        video_attention=seen.received if seen else None,
        repeated_grids=seen.repeated if seen else 0,
    )


def encode_features(
    adapter: Adapter, features: Features, meter: Meter, *, video_attention: bool = False
) -> Encoded:
    """Run both towers over ready features; no media library is needed."""
    video = audio = attention = seen = None
    if features.patches is not None and features.grid is not None:
        with meter.stage("vision tower"):
            video, seen = adapter.vision_tower(
                features.patches, features.grid, attention=video_attention
            )
    if features.mel is not None and audio_token_count(int(features.mel.shape[1])) > 0:
        with meter.stage("audio tower"):
            audio, attention = adapter.audio_tower(features.mel, attention=True)
    media = Media(
        grid=features.grid,
        second_per_grid=features.second_per_grid,
        audio_tokens=0 if audio is None else int(audio.shape[0]),
    )
    return Encoded(
        media=media,
        video=video,
        audio=audio,
        audio_attention=attention,
        video_attention=seen,
    )


def _silent(stage: str, done: float, total: float | None) -> None:
    return None


def _sound(
    adapter: Adapter, meter: Meter, tell: Progress, sound: SoundAhead
) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    tell("sound", 0.0, None)
    with meter.stage("waiting for sound"):
        mel = sound.result()
    if mel is None or audio_token_count(int(mel.shape[1])) <= 0:
        return None
    tell("audio tower", 0.0, None)
    with meter.stage("audio tower"):
        return adapter.audio_tower(mel, attention=True)


class _Seen(NamedTuple):
    embeds: torch.Tensor
    received: torch.Tensor | None
    grid: tuple[int, int, int]
    repeated: int


def _pictures(
    adapter: Adapter,
    clip: Clip,
    meter: Meter,
    tell: Progress,
    attention: bool,
) -> _Seen | None:
    if _has_processors_left(adapter):
        gpu = adapter.device.type != "cpu"
        beside = grids_beside(clip, meter, AHEAD_GPU if gpu else AHEAD)
        waited_for = _waited_for(beside, meter, TOGETHER_GPU if gpu else 0)
        with closing(beside):
            return _embedded(adapter, clip, meter, tell, waited_for, attention)
    with closing(grids_in_rounds(clip, meter)) as grids:
        return _embedded(adapter, clip, meter, tell, grids, attention)


def _has_processors_left(adapter: Adapter) -> bool:
    """Whether reading can go on beside the towers without taking processors from them."""
    idle = (os.cpu_count() or 1) - torch.get_num_threads()
    return adapter.device.type != "cpu" or idle >= READERS


def _waited_for(grids: Ahead[Grids], meter: Meter, patches: int) -> Iterator[Grids]:
    """Yield chunks as they come; together those of which so many patches are there already."""
    while True:
        with meter.stage("waiting for frames"):
            item = next(grids, None)
        if item is None:
            return
        yield all_ready(item, grids, patches)


def _embedded(
    adapter: Adapter,
    clip: Clip,
    meter: Meter,
    tell: Progress,
    grids: Iterator[Grids],
    attention: bool,
) -> _Seen | None:
    parts: list[torch.Tensor] = []
    received: list[torch.Tensor] = []
    places: list[int] = []
    height = width = 0
    total = float(len(clip.plan.times)) if clip.plan is not None else None
    done = 0
    for item in grids:
        if item.rows is not None:
            with meter.stage("vision tower"):
                part, scores = adapter.vision_tower(item.rows, item.shape, attention=attention)
            parts.append(part)
            if scores is not None:
                received.append(scores)
        places += item.places
        _, height, width = item.shape
        done += item.frames
        tell("frames", float(done), total)
    if not parts:
        return None
    return _Seen(
        embeds=_placed(parts, places),
        received=_placed(received, places) if received else None,
        grid=(len(places), height, width),
        repeated=len(places) - 1 - max(places),
    )


def _placed(parts: list[torch.Tensor], places: list[int]) -> torch.Tensor:
    """Put the rows of the distinct grids where they belong, repeats included."""
    rows = torch.cat(parts)
    distinct = max(places) + 1
    if distinct == len(places):
        return rows
    index = torch.tensor(places, device=rows.device)
    return rows.unflatten(0, (distinct, -1)).index_select(0, index).flatten(0, 1)
