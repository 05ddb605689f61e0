"""A clip: sampled frames and 16 kHz audio of a media file, streamed.

    with open_clip("clip.mp4", ClipOptions(fps=2, start=60)) as clip:
        print(clip.plan, clip.notices)
        for chunk in clip.frame_chunks():  # uint8 frames of about two seconds
            ...
        mel = clip.log_mel()

Nothing is read before it is asked for, and memory is bounded: one chunk of frames, plus 32 MiB for
each reader that works ahead. Frames and audio are read separately, each by opening the file again.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnidrop.clip import notices as notice_texts
from omnidrop.clip.audio import audio_blocks
from omnidrop.clip.container import as_path, hash_file
from omnidrop.clip.frames.packets import Damage
from omnidrop.clip.frames.parallel import shown_frames
from omnidrop.clip.frames.picture import fitted
from omnidrop.clip.known import Known
from omnidrop.clip.log_mel import log_mel_stream
from omnidrop.clip.options import ClipOptions, FrameChunk, SamplingPlan, Stopwatch
from omnidrop.clip.prefetch import Gate, Prefetch
from omnidrop.clip.probe import AudioStream, MediaInfo, probe
from omnidrop.clip.read_ahead import Early, frames_ahead
from omnidrop.clip.sampling import check_limits, sampling_plan
from omnidrop.clip.specs import MediaSpec
from omnidrop.clip.tracks import audible_track
from omnidrop.errors import MediaError, UsageError
from omnidrop.notices import NO_AUDIO, NO_VIDEO

__all__ = ["Clip", "ClipOptions", "FrameChunk", "SamplingPlan", "open_clip"]

_OPTIONS, _SPEC = ClipOptions(), MediaSpec()
_OVERHANG = 1.0  # seconds that audio may go on behind the last frame before that frame is repeated
_LONGEST = 30 * 86_400.0  # seconds that a clip may last
_READ_AHEAD = 32 << 20  # bytes of frames that each reader may hold for later


def open_clip(path: Any, options: ClipOptions = _OPTIONS, spec: MediaSpec = _SPEC) -> Clip:
    """Open a media file as a clip.

    Parameters
    ----------
    path : path-like
    options : ClipOptions
    spec : MediaSpec
        What the model asks of media; an adapter has it as `Adapter.media_spec`.

    Raises
    ------
    MediaError
        If the file cannot be read as a clip.
    UsageError
        If the options do not fit the file: a start after its end, a track it does not have.
    """
    return Clip(as_path(path), options, spec)


class Clip:
    """A media file, read as `ClipOptions` say. Made by `open_clip`; a context manager.

    Attributes
    ----------
    path : Path
    options : ClipOptions
    spec : MediaSpec
    info : MediaInfo
    plan : SamplingPlan or None
        None without video.
    has_video, has_audio : bool
        Whether there is any, within start and end.
    silent : bool
        Whether the audio that was read is silent all through.
    start, duration : float
        Seconds; of the selected span.
    notices : list of str
        What the user should know: about the file, then its video, then its audio. Grows while the
        clip is read.
    video_notices, audio_notices : list of str
        Those of `notices` that reading the video and the audio gave so far.
    seconds_to_open : float
        Time spent on opening, the probe included.
    gate : Gate
        While it is closed, reader threads wait.
    resizing, transforming, waiting : Stopwatch
        Seconds spent on resizing frames, on log-mel, and waiting at the gate. They are parts of
        what `frame_chunks` and `log_mel` take; the rest is seeking and decoding.
    """

    def __init__(
        self, path: Path, options: ClipOptions, spec: MediaSpec, *, known: Known | None = None
    ) -> None:
        began = time.perf_counter()
        check_limits(options, spec.video)
        self.path = path
        self.options = options
        self.spec = spec
        self.info: MediaInfo = self._probed(known)
        self._opening_notices: list[str] = list(self.info.notices)
        self.video_notices: list[str] = []
        self.audio_notices: list[str] = []
        self._closed = False
        self._early_frames: Prefetch[FrameChunk] | Generator[FrameChunk, None, None] | None = None
        self._early_mel: Early[Tensor | None] | None = None
        self._early_blocks: Iterator[np.ndarray] | None = None
        self._stop_early = Event()
        self.silent = False
        self.gate = Gate()
        self.resizing, self.transforming, self.waiting = Stopwatch(), Stopwatch(), Stopwatch()
        self._audio_info: MediaInfo | None = self._audio_source(known)
        self._track = self._choose_track(known)
        self.start, self.duration = self._span()
        self.plan = self._make_plan()
        self.has_video = self.plan is not None
        self.has_audio = self._audio_is_long_enough()
        if not self.has_video and not self.has_audio:
            raise MediaError(
                "Nothing is left to answer about: " + " ".join(self.notices or ["no streams."]),
                path=path,
                hint="Name a clip with video or with more audio, or select more of it.",
            )
        self.seconds_to_open = time.perf_counter() - began
        if known is not None:
            self.seconds_to_open += known.seconds_to_open

    def replanned(self, options: ClipOptions | None = None, spec: MediaSpec | None = None) -> Clip:
        """Return a clip of the same file, read in another way; the file is not probed again.

        Parameters
        ----------
        options : ClipOptions, optional
            Default this clip's own.
        spec : MediaSpec, optional
            Default this clip's own.

        Raises
        ------
        UsageError, MediaError
            As `open_clip`.
        """
        return Clip(self.path, options or self.options, spec or self.spec, known=self.known)

    @property
    def known(self) -> Known:
        """What opening the file found."""
        return Known(
            self.path,
            self.options,
            self.info,
            self._audio_info,
            self._track,
            self.seconds_to_open,
        )

    @property
    def notices(self) -> list[str]:
        return [*self._opening_notices, *self.video_notices, *self.audio_notices]

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Clip {self.path.name!r} {self.start:g}-{self.start + self.duration:g} s>"

    def close(self) -> None:
        """End the use of the clip. What is being read is closed with its iterator."""
        self._closed = True
        self._stop_early.set()
        if self._early_frames is not None:
            self._early_frames.close()
        self._early_frames = self._early_mel = self._early_blocks = None

    def read_ahead(self) -> None:
        """Begin to decode in threads; `frame_chunks` and `log_mel` then go on from there, once.

        At most 128 MiB of frames are held until they are asked for.
        """
        self._check_open()
        if self.plan is not None and self._early_frames is None:
            size = 3 * self.plan.size[0] * self.plan.size[1]
            chunk = self.frames_per_chunk * size
            self._early_frames = frames_ahead(self._decoded_chunks(), chunk)
        if self.has_audio and self._early_mel is None:
            make = partial(self._decoded_mel, self._stop_early)
            self._early_mel = Early(make, "omnidrop-sound-ahead")

    def take_over(
        self,
        frames: Generator[FrameChunk, None, None] | None,
        blocks: Iterator[np.ndarray] | None,
    ) -> None:
        """Let `frame_chunks` and `audio_blocks` give what was read elsewhere, once.

        Parameters
        ----------
        frames : generator of FrameChunk or None
            Chunks as this clip would decode them; None leaves them to be decoded.
        blocks : iterator of ndarray or None
            The same blocks of audio; None leaves them to be decoded.
        """
        self._early_frames, self._early_blocks = frames, blocks

    @property
    def is_read_ahead(self) -> bool:
        """Whether frames or audio were read, or begun to be, before they were asked for."""
        early = (self._early_frames, self._early_mel, self._early_blocks)
        return any(held is not None for held in early)

    # What is selected

    def _note(self, text: str, among: list[str] | None = None) -> None:
        if text not in self.notices:
            (self._opening_notices if among is None else among).append(text)

    def _audio_source(self, known: Known | None) -> MediaInfo | None:
        if not self.options.audio:
            return None
        if self.options.audio_file is None:
            return self.info
        if known is not None and known.options.audio_file == self.options.audio_file:
            info = known.audio_info or probe(self.options.audio_file)
        else:
            info = probe(self.options.audio_file)
        if not info.audio:
            raise MediaError(
                "The file has no audio that can be decoded.",
                path=info.path,
                hint="Name another audio file.",
            )
        return info

    @property
    def audio_source(self) -> tuple[MediaInfo, AudioStream]:
        """The file and the track that the audio comes from; only if `has_audio`."""
        assert self._audio_info is not None
        assert self._track is not None
        return self._audio_info, self._track

    def _probed(self, known: Known | None) -> MediaInfo:
        track = self.options.video_track
        if known is not None and known.options.video_track == track:
            return known.info
        return probe(self.path, track) if track is not None else probe(self.path)

    def _choose_track(self, known: Known | None) -> AudioStream | None:
        info = self._audio_info
        if info is None:
            return None
        number = self.options.audio_track
        if number is None:
            if not info.audio:
                self._note(NO_AUDIO)
                return None
            if len(info.audio) == 1:
                return info.audio[0]
            track = self._audible_track(info, known)
            self._note(
                f"The clip has {len(info.audio)} audio tracks; "
                f"track {track.number} is used (--audio-track)."
            )
            return track
        for track in info.audio:
            if track.number == number:
                return track
        have = ", ".join(str(track.number) for track in info.audio) or "none"
        raise UsageError(
            f"The clip has no audio track {number}; it has {have}.",
            path=info.path,
            hint="Audio tracks are numbered from 0.",
        )

    def _audible_track(self, info: MediaInfo, known: Known | None) -> AudioStream:
        if known is not None and known.audio_info is info:
            same = known.options.start == self.options.start
            if same and known.options.audio_track is None and known.track is not None:
                return known.track
        return audible_track(info, self.options.start or 0.0, self.spec.audio.sampling_rate)

    def _span(self) -> tuple[float, float]:
        """Return start and duration of the selected span, in seconds."""
        whole, start = self._whole_duration(), self.options.start or 0.0
        if start >= whole > 0:
            raise UsageError(
                f"start ({start:g} s) is not before the end of the clip ({whole:.2f} s).",
                hint=f"Choose a start below {whole:.2f}.",
            )
        if whole > _LONGEST and self.options.end is None and math.isfinite(whole):
            raise MediaError(
                f"The clip claims to last {whole / 86_400:,.0f} days; its times cannot be right.",
                path=self.path,
                hint="Select the part that matters (--end), or write the file anew with its "
                "frame rate.",
            )
        end = whole
        if self.options.end is not None:
            if self.options.end > whole + 0.05:
                self._note(f"The clip ends at {whole:.2f} s, before the end asked for.")
            end = min(whole, self.options.end)
        return start, max(0.0, end - start)

    def _whole_duration(self) -> float:
        """Return the seconds from the clip's start to the end of the streams that are used."""
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
        """Return the seconds from the clip's start to the end of its video."""
        video = self.info.video
        assert video is not None
        offset = max(0.0, video.start - self.info.start)
        # A single frame has no duration of its own; it counts as one sample.
        return offset + (video.duration or 1.0 / (self.options.fps or self.spec.video.fps))

    def _make_plan(self) -> SamplingPlan | None:
        video, options = self.info.video, self.options
        if video is None or not options.video:
            if video is None and options.video:
                self._note(NO_VIDEO)
            return None
        end, last = self.start + self.duration, self._video_end()
        if end - last > _OVERHANG:
            self._note(
                f"The video ends at {last:.2f} s; its last frame stays on screen until {end:.2f} s."
            )
        elif self.start < last:
            end = min(end, last)
        seconds = end - self.start
        height, width = video.height, video.width
        if (height, width) != video.stored_size:
            if options.square_pixels:
                height, width = video.stored_size
            else:
                self._note(
                    "The video's pixels are not square; it is shown as "
                    f"{width}x{height} (--square-pixels)."
                )
        plan = sampling_plan(options, self.spec.video, seconds, height, width)
        rate = options.fps or self.spec.video.fps
        wanted = rate * seconds
        if len(plan.times) < wanted - self.spec.video.temporal_patch_size:
            self._note(
                f"{rate:g} frames a second would be {wanted:,.0f} frames; at most "
                f"{len(plan.times)} are taken (--max-frames), one every {1 / plan.fps:.3g} s."
            )
        return plan

    def _audio_is_long_enough(self) -> bool:
        track = self._track
        if track is None or self._audio_info is None:
            return False
        offset = track.start - self._audio_info.start
        if track.duration is None:
            return True
        seconds = min(offset + track.duration, self.start + self.duration) - self.start
        if seconds <= 0:
            self._note("There is no audio within the selected span.")
            return False
        if not self._tokens(math.ceil(seconds * self.spec.audio.sampling_rate)):
            self._note(f"The audio is too short for one token ({max(0, seconds):.3f} s).")
            return False
        return True

    def _tokens(self, samples: int) -> int:
        return self.spec.tokens_of_samples(samples)

    # Reading

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the clip is closed")

    @property
    def frames_per_chunk(self) -> int:
        """Frames of a chunk of `frame_chunks`; only with a plan."""
        assert self.plan is not None
        return self.spec.video.frames_per_chunk(self.spec.chunk_seconds, self.plan.fps)

    def frame_chunks(self) -> Generator[FrameChunk, None, None]:
        """Yield the sampled frames, resized, in chunks of about ``spec.chunk_seconds``.

        A chunk is a whole number of temporal patches. Only the last may have an incomplete one, if
        the file ends earlier than announced.

        Raises
        ------
        MediaError
            If no frame of the selected span can be decoded.
        """
        self._check_open()
        early, self._early_frames = self._early_frames, None
        if early is not None:
            with closing(early):
                yield from early
            return
        yield from self._decoded_chunks()

    def _decoded_chunks(self) -> Generator[FrameChunk, None, None]:
        plan, video = self.plan, self.info.video
        if plan is None or video is None:
            return
        per_chunk = self.frames_per_chunk
        damage = Damage()
        times = (plan.times + (self.info.start + self.start)).tolist()
        ahead = max(2, _READ_AHEAD // (3 * plan.size[0] * plan.size[1]))
        resize = self.resizing.timing(partial(_resized, size=plan.size, shape=video.stored_size))
        frames: list[Tensor] = []
        taken = 0
        shown = shown_frames(
            self.path, video, times, damage, change=resize, ahead=ahead, gate=self.gate
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

    def _chunk(self, frames: list[Tensor], taken: int, per_chunk: int) -> FrameChunk:
        assert self.plan is not None
        first = taken - len(frames)
        joined = torch.from_numpy(np.concatenate([frame.numpy() for frame in frames]))
        return FrameChunk(first // per_chunk, joined, self.plan.times[first:taken])

    def _report_video(self, damage: Damage, taken: int) -> None:
        assert self.plan is not None
        wanted = len(self.plan.times)
        for text in notice_texts.video_notices(
            damage, start=self.info.start, taken=taken, wanted=wanted
        ):
            self._note(text, self.video_notices)
        if not taken:
            raise MediaError(
                "No frame of the video can be decoded.",
                path=self.path,
                hint="The file may be damaged; try --no-video if the audio is intact.",
            )

    def audio_blocks(self) -> Iterator[np.ndarray]:
        """Yield the audio: float32, mono, 16 kHz, from the clip's start, in bounded blocks.

        Raises
        ------
        MediaError
            If no audio can be decoded, and there is no video either.
        """
        self._check_open()
        early, self._early_blocks = self._early_blocks, None
        if early is not None:
            yield from early
            return
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
            rate=self.spec.audio.sampling_rate,
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
                "No audio can be decoded.", path=info.path, hint="The file may be damaged."
            )
        self.silent = total > 0 and loudest < notice_texts.SILENCE
        end, announced = self.start + total / self.spec.audio.sampling_rate, None
        if track.duration is not None:
            announced = min(track.start - info.start + track.duration, self.start + self.duration)
        for text in notice_texts.audio_notices(
            damage, decoded=total > 0, loudest=loudest, end=end, announced=announced
        ):
            self._note(text, self.audio_notices)

    def log_mel(self, stop: Event | None = None) -> Tensor | None:
        """Return the log-mel features of the audio: float32 (n_mels, F); None without audio.

        Setting ``stop`` from another thread ends the reading early, with None.
        """
        self._check_open()
        early, self._early_mel = self._early_mel, None
        return early.result() if early is not None else self._decoded_mel(stop)

    def _decoded_mel(self, stop: Event | None = None) -> Tensor | None:
        if not self.has_audio:
            return None
        stream = log_mel_stream(self.spec.audio)
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
                    "The audio is too short for one token.",
                    path=self.path,
                    hint="Select more of it.",
                )
            self.has_audio = False
            return None
        with self.transforming:
            return stream.finish()

    @cached_property
    def identity(self) -> str:
        """SHA-256 of the file's contents and all settings: equal for clips that give the same.

        Files of up to 64 MiB are hashed whole. Of larger ones the size, the time of the last
        modification and 64 blocks of 1 MiB, evenly spread over the file, are hashed instead, so
        that hashing does not cost as much as reading.
        """
        spec = self.spec
        names = asdict(self.options.resolved(spec.video))
        names["audio_file"] = None
        video, audio = asdict(spec.video), asdict(spec.audio)
        for default in ("fps", "min_frames", "max_frames"):  # resolved above
            del video[default]
        # Most models have neither; clips keep the identity of before they were added.
        if video["long_pixels"] is None:
            del video["long_pixels"]
        if not audio["piece_seconds"]:
            del audio["piece_seconds"]
        settings = [names, video, audio, spec.chunk_seconds]
        digest = hashlib.sha256(repr(settings).encode())
        hash_file(digest, self.path)
        if self.options.audio_file is not None:
            hash_file(digest, as_path(self.options.audio_file))
        return digest.hexdigest()


def _resized(image: Tensor, size: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Resize one frame, (3, H, W) -> (1, 3, height, width), contiguous."""
    resized = fitted(image[None], size, shape)
    # numpy copies in this thread; torch would wake others, which costs more than the copy.
    return torch.from_numpy(np.ascontiguousarray(resized.numpy()))
