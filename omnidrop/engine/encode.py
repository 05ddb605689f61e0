"""A clip → embeddings of its frames and sound, once, for any number of questions.

The towers' attention never crosses a chunk (2 s of sound, one temporal grid of video), so they run
chunk by chunk: a thread decodes frames while the tower works on the chunk before, and no more than
a few chunks of pixels are ever held.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from omnidrop.clip.features import audio_token_count, patches
from omnidrop.engine.meter import Meter
from omnidrop.errors import MediaError
from omnidrop.models.adapter import Adapter
from omnidrop.prompt import Media

if TYPE_CHECKING:  # ready features need no media library
    from omnidrop.clip.decode import Clip

#: Called with (stage, done, total or None); what a progress bar needs.
Progress = Callable[[str, float, float | None], None]

#: Chunks of pixels decoded ahead of the vision tower.
AHEAD = 2


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
    """

    media: Media
    video: torch.Tensor | None
    audio: torch.Tensor | None
    audio_attention: torch.Tensor | None
    video_attention: torch.Tensor | None = None

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
        mask = video_mask.to(device)
        mixed[mask] = parts[0]
        mixed[~mask] = parts[1]
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
    frames = _Ahead(clip, meter) if clip.has_video else None
    try:
        audio, attention = _sound(adapter, clip, meter, tell) if clip.has_audio else (None, None)
        video, seen, grid = (
            _pictures(adapter, clip, meter, tell, frames, video_attention)
            if frames
            else (None, None, None)
        )
    finally:
        if frames is not None:
            frames.close()
    if video is None and audio is None:
        raise MediaError(
            "There is nothing to look at or listen to in the asked span.",
            path=clip.path,
            hint="A sound must last at least 0.04 s; see `omnidrop chunks` for what is there.",
        )
    fps = clip.plan.fps if clip.plan is not None else None
    media = Media(
        grid=grid,
        second_per_grid=adapter.video_spec.temporal_patch_size / fps if grid and fps else None,
        audio_tokens=0 if audio is None else int(audio.shape[0]),
    )
    return Encoded(
        media=media,
        video=video,
        audio=audio,
        audio_attention=attention,
        video_attention=seen,
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
    adapter: Adapter, clip: Clip, meter: Meter, tell: Progress
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    tell("sound", 0.0, None)
    with meter.stage("sound"):
        mel = clip.log_mel()
        meter.add("log-mel", clip.transforming.seconds, within="sound")
    if mel is None or audio_token_count(int(mel.shape[1])) <= 0:
        return None, None
    tell("audio tower", 0.0, None)
    with meter.stage("audio tower"):
        return adapter.audio_tower(mel, attention=True)


def _pictures(
    adapter: Adapter,
    clip: Clip,
    meter: Meter,
    tell: Progress,
    frames: _Ahead,
    attention: bool,
) -> tuple[torch.Tensor | None, torch.Tensor | None, tuple[int, int, int] | None]:
    parts: list[torch.Tensor] = []
    received: list[torch.Tensor] = []
    grids = height = width = 0
    total = float(len(clip.plan.times)) if clip.plan is not None else None
    done = 0
    while True:
        with meter.stage("waiting for frames"):
            item = next(frames, None)
        if item is None:
            break
        rows, grid, count = item
        with meter.stage("vision tower"):
            part, scores = adapter.vision_tower(rows, grid, attention=attention)
        parts.append(part)
        if scores is not None:
            received.append(scores)
        grids += grid[0]
        height, width = grid[1], grid[2]
        done += count
        tell("frames", float(done), total)
    if not parts:
        return None, None, None
    return torch.cat(parts), torch.cat(received) if received else None, (grids, height, width)


_Item = tuple[torch.Tensor, tuple[int, int, int], int]


class _Ahead(Iterator[_Item]):
    """Decodes frames and makes their patches in a thread, a few chunks ahead of the reader."""

    def __init__(self, clip: Clip, meter: Meter) -> None:
        self._queue: queue.Queue[_Item | BaseException | None] = queue.Queue(maxsize=AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(clip, meter), name="omnidrop-frames", daemon=True
        )
        self._thread.start()

    def _work(self, clip: Clip, meter: Meter) -> None:
        try:
            chunks = clip.frame_chunks()
            while not self._stop.is_set():
                with meter.stage("frames", overlapped=True):
                    chunk = next(chunks, None)
                if chunk is None:
                    break
                with meter.stage("patches", overlapped=True):
                    rows, grid = patches(chunk.frames, clip.video_spec)
                self._put((rows, grid, int(chunk.frames.shape[0])))
            meter.add("resize", clip.resizing.seconds, within="frames", overlapped=True)
            self._put(None)
        except BaseException as error:  # handed to the reader, who raises it
            self._put(error)

    def _put(self, item: _Item | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def __next__(self) -> _Item:
        if self._stop.is_set():
            raise StopIteration
        item = self._queue.get()
        if item is None:
            self._stop.set()
            raise StopIteration
        if isinstance(item, BaseException):
            self._stop.set()
            raise item
        return item

    def close(self) -> None:
        """Stop decoding and wait for the thread."""
        self._stop.set()
        self._thread.join(timeout=10.0)
