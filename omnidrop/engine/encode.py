"""Encodes a clip's video and audio once, for any number of questions.

The encoders' attention never crosses a chunk (a window of audio, one temporal grid of video), so
they run chunk by chunk, and only a few seconds of pixels are in memory at a time. If the model is
on a GPU, a thread decodes frames while the encoder computes on earlier ones; if the encoder shares
the CPU with decoding, the two take turns. Another thread decodes the audio. A grid with the same
pixels as an earlier one is not encoded again: its rows are copied.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from omnidrop.clip.prefetch import Prefetch
from omnidrop.engine.frame_stream import (
    BATCH_PATCHES_GPU,
    PREFETCHED,
    PREFETCHED_GPU,
    AudioPrefetch,
    Grids,
    grids_in_rounds,
    joined,
    prefetched_grids,
)
from omnidrop.engine.timing import Meter
from omnidrop.errors import MediaError
from omnidrop.models.adapter import Adapter, Embeds
from omnidrop.report.trace import Used
from omnidrop.stages import Progress, StageName
from omnidrop.tokens import Media
from omnidrop.transfers import to_device

if TYPE_CHECKING:  # precomputed features need no media library
    from omnidrop.clip.clip import Clip

#: Idle CPU cores from which frames are decoded while the encoder runs on the CPU.
READERS = 3


@dataclass(frozen=True)
class Features:
    """Precomputed features, for use without any media library.

    Attributes
    ----------
    patches : Tensor or None, (t·h·w, channels·temporal_patch·patch²) float32
        Normalised patches in the order of the family's reference processor.
    grid : tuple of int or None
        (t, h, w) in patches.
    second_per_grid : float or None
        Seconds between temporal grids: frames per grid / true fps.
    mel : Tensor or None, (n_mels, F) float32
        Log-mel spectrogram, as the model's `audio_spec` defines it.
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
    planes : tuple of Tensor, (Nv, D) each
        Video embeddings in the order of time, then rows, then columns; empty without video. The
        first enters the decoder, plane i is added to the same tokens' rows after layer i - 1.
    audio : Tensor or None, (Na, D)
        Audio embeddings in the order of time.
    audio_attention : Tensor or None, (Na,) float32
        Attention each audio token received in the audio encoder's last layer; None where the
        encoder does not report it.
    video_attention : Tensor or None, (Nv,) float32
        The same for video tokens and the vision encoder, if it was requested.
    repeated_grids : int
        Temporal grids that were not encoded because they repeat earlier ones.
    used : Used
        Frames, and seconds of video and audio, that the embeddings stand for.
    """

    media: Media
    planes: tuple[torch.Tensor, ...]
    audio: torch.Tensor | None
    audio_attention: torch.Tensor | None
    video_attention: torch.Tensor | None = None
    repeated_grids: int = 0
    used: Used = field(default_factory=Used)

    @property
    def video(self) -> torch.Tensor | None:
        """Video embeddings that enter the decoder, (Nv, D); None without video."""
        return self.planes[0] if self.planes else None

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        held = (*self.planes, self.audio, self.audio_attention, self.video_attention)
        return sum(t.untyped_storage().nbytes() for t in held if t is not None)

    def in_prompt_order(self, video_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Interleave video and audio as the prompt does.

        Parameters
        ----------
        video_mask : Tensor, (N,) bool
            True where the prompt's AV token is video, False where it is audio.

        Returns
        -------
        tuple of Tensor, (N, D) each
            One for each plane, at least one. Audio rows are zero in all planes but the first.

        Raises
        ------
        ValueError
            If there is neither video nor audio.
        """
        if self.audio is None:
            if not self.planes:
                raise ValueError("there is neither video nor audio to interleave")
            return self.planes
        if not self.planes:
            return (self.audio,)
        # Indices are computed on the host: indexing by a mask would synchronise with the device.
        video, audio = (
            to_device(mask.nonzero().squeeze(1), self.audio.device)
            for mask in (video_mask, ~video_mask)
        )
        mixed = []
        for plane in self.planes:
            rows = plane.new_zeros((len(video_mask), plane.shape[-1]))
            mixed.append(rows.index_copy_(0, video, plane))
        mixed[0].index_copy_(0, audio, self.audio)
        return tuple(mixed)


def encode_clip(
    adapter: Adapter,
    clip: Clip,
    meter: Meter,
    progress: Progress | None = None,
    *,
    video_attention: bool = False,
) -> Encoded:
    """Decode a clip and run both encoders over it.

    Parameters
    ----------
    adapter : Adapter
        The model.
    clip : Clip
        An open clip.
    meter : Meter
        Receives the stages' times.
    progress : callable, optional
        Called with (stage, done, total).
    video_attention : bool
        Also collect the attention that video tokens received.

    Raises
    ------
    MediaError
        If neither a frame nor enough audio for one token can be decoded.
    """
    report = progress or _silent
    sound = AudioPrefetch(clip, meter) if clip.has_audio else None
    try:
        video = _video(adapter, clip, meter, report, video_attention) if clip.has_video else None
        audio = _audio(adapter, meter, report, sound) if sound else None
    finally:
        if sound is not None:
            sound.close()
    if video is None and audio is None:
        raise MediaError(
            "There is neither video nor audio in this span.",
            path=clip.path,
            hint=f"Audio must last at least {_shortest(adapter):g} s; "
            "see `omnidrop chunks` for what is there.",
        )
    fps = clip.plan.fps if clip.plan is not None else None
    depth = adapter.video_spec.temporal_patch_size
    media = Media(
        grid=video.grid if video else None,
        second_per_grid=depth / fps if video and fps else None,
        audio_tokens=len(audio.embeds.planes[0]) if audio else 0,
    )
    return Encoded(
        media=media,
        planes=video.embeds.planes if video else (),
        audio=audio.embeds.planes[0] if audio else None,
        audio_attention=audio.embeds.received if audio else None,
        video_attention=video.embeds.received if video else None,
        repeated_grids=video.repeated if video else 0,
        used=Used(
            frames=video.frames if video else 0,
            video_seconds=min(video.frames / fps, clip.duration) if video and fps else 0.0,
            audio_seconds=min(audio.seconds, clip.duration) if audio else 0.0,
        ),
    )


def encode_features(
    adapter: Adapter, features: Features, meter: Meter, *, video_attention: bool = False
) -> Encoded:
    """Run both encoders over precomputed features; no media library is needed."""
    video = audio = None
    if features.patches is not None and features.grid is not None:
        with meter.stage(StageName.VISION_TOWER):
            video = adapter.encode_video(features.patches, features.grid, attention=video_attention)
    if features.mel is not None and _audio_tokens(adapter, features.mel) > 0:
        with meter.stage(StageName.AUDIO_TOWER):
            audio = adapter.encode_audio(features.mel, attention=True)
    grids = features.grid[0] if video and features.grid else 0
    media = Media(
        grid=features.grid,
        second_per_grid=features.second_per_grid,
        audio_tokens=len(audio.planes[0]) if audio else 0,
    )
    return Encoded(
        media=media,
        planes=video.planes if video else (),
        audio=audio.planes[0] if audio else None,
        audio_attention=audio.received if audio else None,
        video_attention=video.received if video else None,
        used=Used(
            frames=grids * adapter.video_spec.temporal_patch_size,
            video_seconds=grids * (features.second_per_grid or 0.0),
            audio_seconds=_seconds(adapter, features.mel) if audio else 0.0,
        ),
    )


def media_of(clip: Clip) -> Media:
    """Return the sizes of a clip in the prompt, from its sampling plan and the file's header.

    Nothing is decoded. The sizes are exact if the durations in the header are.
    """
    spec = clip.spec
    grid = step = None
    if clip.plan is not None:
        depth, patch = spec.video.temporal_patch_size, spec.video.patch_size
        height, width = clip.plan.size
        grid = (-(-len(clip.plan.times) // depth), height // patch, width // patch)
        step = depth / clip.plan.fps
    audio = 0
    if clip.has_audio:
        info, track = clip.audio_source
        seconds = clip.duration
        if track.duration is not None:
            end = track.start - info.start + track.duration
            seconds = min(end, clip.start + clip.duration) - clip.start
        audio = spec.tokens_of_samples(math.ceil(round(seconds * spec.audio.sampling_rate, 3)))
    return Media(grid=grid, second_per_grid=step, audio_tokens=audio)


def _silent(stage: str, done: float, total: float | None) -> None:
    return None


def _audio_tokens(adapter: Adapter, mel: torch.Tensor) -> int:
    return adapter.template.audio_tokens(int(mel.shape[1]))


def _shortest(adapter: Adapter) -> float:
    """Return the seconds of audio that one token covers."""
    spec = adapter.audio_spec
    return float(adapter.template.mel_per_token) * spec.hop / spec.sampling_rate


def _seconds(adapter: Adapter, mel: torch.Tensor | None) -> float:
    """Return the seconds of audio that a log-mel covers."""
    return mel.shape[1] / adapter.audio_spec.frames_per_second if mel is not None else 0.0


class _Audio(NamedTuple):
    embeds: Embeds
    seconds: float


def _audio(adapter: Adapter, meter: Meter, report: Progress, sound: AudioPrefetch) -> _Audio | None:
    report(StageName.SOUND, 0.0, None)
    with meter.stage(StageName.WAITING_FOR_SOUND):
        mel = sound.result()
    if mel is None or _audio_tokens(adapter, mel) <= 0:
        return None
    report(StageName.AUDIO_TOWER, 0.0, None)
    with meter.stage(StageName.AUDIO_TOWER):
        return _Audio(adapter.encode_audio(mel, attention=True), _seconds(adapter, mel))


class _Video(NamedTuple):
    embeds: Embeds
    grid: tuple[int, int, int]
    repeated: int
    frames: int


def _video(
    adapter: Adapter,
    clip: Clip,
    meter: Meter,
    report: Progress,
    attention: bool,
) -> _Video | None:
    if decodes_in_parallel(adapter):
        gpu = adapter.device.type != "cpu"
        prefetch = prefetched_grids(clip, meter, PREFETCHED_GPU if gpu else PREFETCHED)
        batches = joined(_timed(prefetch, meter), BATCH_PATCHES_GPU if gpu else 0)
        with closing(prefetch):
            return _embedded(adapter, clip, meter, report, batches, attention)
    with closing(grids_in_rounds(clip, meter)) as grids:
        return _embedded(adapter, clip, meter, report, grids, attention)


def decodes_in_parallel(adapter: Adapter) -> bool:
    """Whether decoding can run in parallel to the encoder without slowing it down."""
    idle = (os.cpu_count() or 1) - torch.get_num_threads()
    return adapter.device.type != "cpu" or idle >= READERS


def _timed(grids: Prefetch[Grids], meter: Meter) -> Iterator[Grids]:
    """Yield chunks as they arrive, and time the waiting as a stage."""
    while True:
        with meter.stage(StageName.WAITING_FOR_FRAMES):
            item = next(grids, None)
        if item is None:
            return
        yield item


def _embedded(
    adapter: Adapter,
    clip: Clip,
    meter: Meter,
    report: Progress,
    grids: Iterator[Grids],
    attention: bool,
) -> _Video | None:
    parts: list[Embeds] = []
    places: list[int] = []
    height = width = 0
    total = float(len(clip.plan.times)) if clip.plan is not None else None
    done = 0
    for item in grids:
        if item.rows is not None:
            with meter.stage(StageName.VISION_TOWER):
                parts.append(adapter.encode_video(item.rows, item.shape, attention=attention))
        places += item.places
        _, height, width = item.shape
        done += item.frames
        report(StageName.FRAMES, float(done), total)
    if not parts:
        return None
    received = [part.received for part in parts if part.received is not None]
    planes = zip(*(part.planes for part in parts), strict=True)
    return _Video(
        embeds=Embeds(
            tuple(_placed(plane, places) for plane in planes),
            _placed(received, places) if received else None,
        ),
        grid=(len(places), height, width),
        repeated=len(places) - 1 - max(places),
        frames=done,
    )


def _placed(parts: Iterable[torch.Tensor], places: list[int]) -> torch.Tensor:
    """Return the rows of all grids in order, from those of the distinct grids."""
    rows = torch.cat(tuple(parts))
    distinct = max(places) + 1
    if distinct == len(places):
        return rows
    index = torch.tensor(places, device=rows.device)
    return rows.unflatten(0, (distinct, -1)).index_select(0, index).flatten(0, 1)
