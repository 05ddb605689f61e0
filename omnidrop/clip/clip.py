"""A clip: sampled frames and 16 kHz sound of a media file, streamed.

    with open_clip("clip.mp4", ClipOptions(fps=2, start=60)) as clip:
        print(clip.plan, clip.notices)
        for chunk in clip.frame_chunks():  # uint8 frames of about two seconds
            ...
        mel = clip.log_mel()

Nothing is read before it is asked for, and no more than some seconds of it are held (of frames a
chunk, and 32 MiB by each reader at work ahead); `Clip.read` is the exception. Frames and sound are
read separately, each from the file anew.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnidrop.clip import notices as remarks
from omnidrop.clip.audio import audio_blocks
from omnidrop.clip.container import as_path, hash_file
from omnidrop.clip.features import (
    AudioSpec,
    LogMel,
    VideoSpec,
    audio_token_count,
    resize_frames,
)
from omnidrop.clip.frames.packets import Damage
from omnidrop.clip.frames.parallel import shown_frames
from omnidrop.clip.options import ClipData, ClipOptions, FrameChunk, SamplingPlan, Stopwatch
from omnidrop.clip.prefetch import Gate
from omnidrop.clip.probe import AudioStream, MediaInfo, probe
from omnidrop.clip.sampling import sampling_plan
from omnidrop.errors import MediaError, UsageError

__all__ = ["Clip", "ClipData", "ClipOptions", "FrameChunk", "SamplingPlan", "open_clip"]

_OPTIONS, _VIDEO, _AUDIO = ClipOptions(), VideoSpec(), AudioSpec()
_AHEAD = 32 << 20  # bytes of frames that a reader may hold until those before them are read


def open_clip(
    path: Any,
    options: ClipOptions = _OPTIONS,
    *,
    video_spec: VideoSpec = _VIDEO,
    audio_spec: AudioSpec = _AUDIO,
    chunk_seconds: float = 2.0,
) -> Clip:
    """Open a media file as a clip.

    Parameters
    ----------
    path : path-like
    options : ClipOptions
    video_spec, audio_spec
        What the model's towers ask.
    chunk_seconds : float
        Length of the chunks that frames come in.

    Raises
    ------
    MediaError
        If the file cannot be read as a clip.
    UsageError
        If the options do not fit the file: a start after its end, a track it does not have.
    """
    return Clip(as_path(path), options, video_spec, audio_spec, chunk_seconds)


class Clip:
    """A media file, seen through `ClipOptions`. Made by `open_clip`; a context manager.

    Attributes
    ----------
    path : Path
    options : ClipOptions
    info : MediaInfo
    plan : SamplingPlan or None
        None without a picture.
    has_video, has_audio : bool
        Whether there is any, within start and end.
    start, duration : float
        Seconds; of the selected span.
    notices : list of str
        What a person should know; grows while the clip is read.
    opening : float
        Seconds that probing and planning took.
    gate : Gate
        While it is closed, what reads in threads of its own waits.
    resizing, transforming, waiting : Stopwatch
        Seconds spent on resizing frames, and on log-mel and at the gate: parts of what
        `frame_chunks` and `log_mel` take, the rest of which is seeking and decoding.
    """

    def __init__(
        self,
        path: Path,
        options: ClipOptions,
        video_spec: VideoSpec,
        audio_spec: AudioSpec,
        chunk_seconds: float,
        *,
        probed: Clip | None = None,
    ) -> None:
        began = time.perf_counter()
        self.path = path
        self.options = options
        self.video_spec = video_spec
        self.audio_spec = audio_spec
        self.chunk_seconds = chunk_seconds
        self.info: MediaInfo = probe(path) if probed is None else probed.info
        self.notices: list[str] = list(self.info.notices)
        self._closed = False
        self.gate = Gate()
        self.resizing, self.transforming, self.waiting = Stopwatch(), Stopwatch(), Stopwatch()
        self._audio_info: MediaInfo | None = (
            self._sound_source() if probed is None else probed._audio_info
        )
        self._track = self._choose_track()
        whole = self._whole_duration()
        self.start = options.start or 0.0
        if self.start >= whole > 0:
            raise UsageError(
                f"start ({self.start:g} s) is not before the end of the clip ({whole:.2f} s).",
                hint=f"Choose a start below {whole:.2f}.",
            )
        end = whole
        if options.end is not None:
            if options.end > whole + 0.05:
                self._note(f"The clip ends at {whole:.2f} s, before the end asked for.")
            end = min(whole, options.end)
        self.duration = max(0.0, end - self.start)
        self.plan = self._make_plan()
        self.has_video = self.plan is not None
        self.has_audio = self._sound_is_long_enough()
        if not self.has_video and not self.has_audio:
            raise MediaError(
                "Nothing is left to answer about: " + " ".join(self.notices or ["no streams."]),
                path=path,
                hint="Name a clip with picture or with more sound, or select more of it.",
            )
        self.opening: float = time.perf_counter() - began + (probed.opening if probed else 0.0)

    def sampled_for(
        self, video_spec: VideoSpec, audio_spec: AudioSpec, chunk_seconds: float
    ) -> Clip:
        """Return this clip as a model samples it; the file is not probed again."""
        return Clip(self.path, self.options, video_spec, audio_spec, chunk_seconds, probed=self)

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Clip {self.path.name!r} {self.start:g}-{self.start + self.duration:g} s>"

    def close(self) -> None:
        """End the use of the clip. What is being read is closed with its iterator."""
        self._closed = True

    # What is taken

    def _note(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)

    def _sound_source(self) -> MediaInfo | None:
        if not self.options.audio:
            return None
        if self.options.audio_file is None:
            return self.info
        info = probe(self.options.audio_file)
        if not info.audio:
            raise MediaError(
                "The file has no sound that can be decoded.",
                path=info.path,
                hint="Name another sound file.",
            )
        return info

    @property
    def sound_source(self) -> tuple[MediaInfo, AudioStream]:
        """The file and the track that the sound comes from; only where `has_audio`."""
        assert self._audio_info is not None
        assert self._track is not None
        return self._audio_info, self._track

    def _choose_track(self) -> AudioStream | None:
        info = self._audio_info
        if info is None:
            return None
        number = self.options.audio_track
        if number is None:
            if not info.audio:
                self._note("The clip has no sound.")
                return None
            if len(info.audio) > 1:
                self._note(
                    f"The clip has {len(info.audio)} sound tracks; "
                    f"track {info.audio[0].number} is used (--audio-track)."
                )
            return info.audio[0]
        for track in info.audio:
            if track.number == number:
                return track
        have = ", ".join(str(track.number) for track in info.audio) or "none"
        raise UsageError(
            f"The clip has no sound track {number}; it has {have}.",
            path=info.path,
            hint="Sound tracks are numbered from 0.",
        )

    def _whole_duration(self) -> float:
        """Seconds from the clip's beginning to the end of what is taken of it."""
        ends = [0.0]
        if self.info.video is not None and self.options.video:
            ends.append(self._video_end())
        if self._track is not None and self._audio_info is not None:
            if self._track.duration is not None:
                offset = self._track.start - self._audio_info.start
                ends.append(offset + self._track.duration)
            elif self.info.video is None:
                ends.append(math.inf)
        return max(ends)

    def _video_end(self) -> float:
        """Seconds from the clip's beginning to the end of its picture."""
        video = self.info.video
        assert video is not None
        offset = max(0.0, video.start - self.info.start)
        # A single frame has no length of its own; it counts as one sample.
        return offset + (video.duration or 1.0 / self.options.fps)

    def _make_plan(self) -> SamplingPlan | None:
        video, options = self.info.video, self.options
        if video is None or not options.video:
            if video is None and options.video:
                self._note("The clip has no picture.")
            return None
        end = min(self.start + self.duration, self._video_end())
        seconds = end - self.start
        if seconds <= 0:
            self._note(f"The picture ends at {self._video_end():.2f} s, before the start.")
            return None
        return sampling_plan(options, self.video_spec, seconds, video.height, video.width)

    def _sound_is_long_enough(self) -> bool:
        track = self._track
        if track is None or self._audio_info is None:
            return False
        offset = track.start - self._audio_info.start
        if track.duration is None:
            return True
        seconds = min(offset + track.duration, self.start + self.duration) - self.start
        if seconds <= 0:
            self._note("There is no sound within the part selected.")
            return False
        if not self._tokens(math.ceil(seconds * self.audio_spec.sampling_rate)):
            self._note(f"The sound is too short to be heard ({max(0, seconds):.3f} s).")
            return False
        return True

    def _tokens(self, samples: int) -> int:
        return audio_token_count(-(-samples // self.audio_spec.hop))

    # What is read

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the clip is closed")

    def frame_chunks(self) -> Generator[FrameChunk, None, None]:
        """Yield the sampled frames, resized, in chunks of about ``chunk_seconds``.

        A chunk is a whole number of temporal patches; only the last may have an odd frame, if the
        file ends before it said it would.

        Raises
        ------
        MediaError
            If no frame of the selected part can be decoded.
        """
        self._check_open()
        plan, video = self.plan, self.info.video
        if plan is None or video is None:
            return
        depth = self.video_spec.temporal_patch_size
        per_chunk = max(1, round(self.chunk_seconds * plan.fps / depth)) * depth
        damage = Damage()
        times = (plan.times + (self.info.start + self.start)).tolist()
        ahead = max(2, _AHEAD // (3 * plan.size[0] * plan.size[1]))
        frames: list[Tensor] = []
        taken = 0
        shown = shown_frames(
            self.path, video, times, damage, change=self._resized, ahead=ahead, gate=self.gate
        )
        with closing(shown):
            for frame in shown:
                frames.append(frame)
                taken += 1
                if len(frames) == per_chunk:
                    yield self._chunk(frames, taken, per_chunk)
                    frames = []
        if frames:
            yield self._chunk(frames, taken, per_chunk)
        self._report_video(damage, taken)

    def _resized(self, image: Tensor) -> Tensor:
        assert self.plan is not None
        with self.resizing:
            resized = resize_frames(image[None], self.plan.size)
            # numpy copies with this thread alone; torch would wake others, for less than it costs.
            return torch.from_numpy(np.ascontiguousarray(resized.numpy()))

    def _chunk(self, frames: list[Tensor], taken: int, per_chunk: int) -> FrameChunk:
        assert self.plan is not None
        first = taken - len(frames)
        joined = torch.from_numpy(np.concatenate([frame.numpy() for frame in frames]))
        return FrameChunk(first // per_chunk, joined, self.plan.times[first:taken])

    def _report_video(self, damage: Damage, taken: int) -> None:
        assert self.plan is not None
        wanted = len(self.plan.times)
        for text in remarks.on_picture(damage, start=self.info.start, taken=taken, wanted=wanted):
            self._note(text)
        if not taken:
            raise MediaError(
                "No frame of the picture can be decoded.",
                path=self.path,
                hint="The file may be damaged; try --no-video if the sound is whole.",
            )

    def audio_blocks(self) -> Iterator[np.ndarray]:
        """Yield the sound: float32, mono, 16 kHz, from the clip's start on, in bounded blocks.

        Raises
        ------
        MediaError
            If no sound can be decoded, and there is no picture either.
        """
        self._check_open()
        info, track = self._audio_info, self._track
        if info is None or track is None or not self.has_audio:
            return
        cut = self.options.end is not None
        damage = Damage()
        total, loudest = 0, 0.0
        for block in audio_blocks(
            info.path,
            track,
            file_format=info.format,
            alone=info.video is None and len(info.audio) == 1,
            origin=info.start + self.start,
            length=self.duration if cut and math.isfinite(self.duration) else None,
            rate=self.audio_spec.sampling_rate,
            damage=damage,
        ):
            total += len(block)
            loudest = max(loudest, float(np.abs(block).max(initial=0.0)))
            yield block
        self._report_audio(damage, total, loudest)

    def _report_audio(self, damage: Damage, total: int, loudest: float) -> None:
        track, info = self._track, self._audio_info
        assert track is not None
        assert info is not None
        if not total and not self.has_video:
            raise MediaError(
                "No sound can be decoded.", path=info.path, hint="The file may be damaged."
            )
        end, said = self.start + total / self.audio_spec.sampling_rate, None
        if track.duration is not None:
            said = min(track.start - info.start + track.duration, self.start + self.duration)
        for text in remarks.on_sound(damage, heard=total > 0, loudest=loudest, end=end, said=said):
            self._note(text)

    def log_mel(self, stop: Event | None = None) -> Tensor | None:
        """Log-mel features of the sound: float32 (128, F); None if there is none to hear.

        Setting ``stop`` from another thread ends the reading early, with None.
        """
        self._check_open()
        if not self.has_audio:
            return None
        stream = LogMel(self.audio_spec)
        for block in self.audio_blocks():
            with self.waiting:
                self.gate.wait()
            if stop is not None and stop.is_set():
                return None
            with self.transforming:
                stream.push(block)
        if not self._tokens(stream.samples):
            if not self.has_video:
                raise MediaError(
                    "The sound is too short to be heard.", path=self.path, hint="Take more of it."
                )
            self.has_audio = False
            return None
        with self.transforming:
            return stream.finish()

    def read(self) -> ClipData:
        """Read the whole clip into memory, the sound in a thread of its own."""
        with ThreadPoolExecutor(1, thread_name_prefix="omnidrop-sound") as beside:
            sound = beside.submit(lambda: list(self.audio_blocks()))
            size, most = (self.plan.size, len(self.plan.times)) if self.plan else ((0, 0), 0)
            frames, taken = torch.empty((most, 3, *size), dtype=torch.uint8), 0
            for chunk in self.frame_chunks():
                frames.numpy()[taken : taken + len(chunk.frames)] = chunk.frames.numpy()
                taken += len(chunk.frames)
            blocks = sound.result()
        return ClipData(
            frames=frames[:taken],
            audio=torch.from_numpy(np.concatenate(blocks)) if blocks else None,
            fps=self.plan.fps if self.plan is not None else 0.0,
            start=self.start,
            end=self.start + self.duration,
            identity=self.identity,
        )

    @cached_property
    def identity(self) -> str:
        """A name for what this clip holds: the SHA-256 of the file's contents and all settings.

        Files of up to 64 MiB are hashed whole. Of larger ones the size, the time of the last
        change and 64 blocks of 1 MiB, evenly spread from the first byte to the last, stand for the
        whole, so that a look at it does not cost as much as reading it.
        """
        names = asdict(self.options)
        names["audio_file"] = None
        settings = [names, asdict(self.video_spec), asdict(self.audio_spec), self.chunk_seconds]
        digest = hashlib.sha256(repr(settings).encode())
        hash_file(digest, self.path)
        if self.options.audio_file is not None:
            hash_file(digest, as_path(self.options.audio_file))
        return digest.hexdigest()
