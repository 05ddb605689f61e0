"""A clip that was read already: its frames, its sound and its facts as one value that can be sent.

    with open_clip("clip.mp4", spec=spec) as clip:
        read = ReadClip.of(clip)                             # in a process without a model
    session = model.open(pickle.loads(pickle.dumps(read)))   # in the one that has it

Reading is the work of CPUs alone, so it can be done by other processes than those that hold a
model. What the receiver's clip says and gives is what it would if it had read the file itself:
the same frames in the same chunks, the same audio in the same blocks, notices and errors at the
same places. Only the seconds that reading took are not counted there.

Log-mel and patches are left to the receiver. The last bits of a log-mel depend on how many threads
compute it, and on the blocks that it is computed from; those of decoded frames and samples do not.
"""

from __future__ import annotations

import math
import pickle
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from omnidrop.clip.clip import Clip
from omnidrop.clip.known import Known
from omnidrop.clip.options import FrameChunk
from omnidrop.clip.specs import AudioSpec, MediaSpec, VideoSpec
from omnidrop.errors import OmniDropError

__all__ = ["ReadClip", "decoded_bytes", "sendable"]


@dataclass(frozen=True, eq=False)
class Told:
    """What reading a stream told: notices, and what it ended with if that was an error."""

    notices: tuple[str, ...] = ()
    problem: Exception | None = None

    def tell(self, among: list[str]) -> None:
        """Add the notices to those of a clip, then raise the error if there is one."""
        among += [text for text in self.notices if text not in among]
        if self.problem is not None:
            raise self.problem


@dataclass(frozen=True, eq=False)
class ReadClip:
    """A clip that was read; can be pickled. Made by `ReadClip.of`.

    Attributes
    ----------
    known : Known
        The file, the options it was opened with, and what was found.
    video_spec, audio_spec : VideoSpec, AudioSpec
        What it was read for.
    chunk_seconds : float
    identity : str
        `Clip.identity`.
    frames : ndarray or None, uint8, (n, 3, H, W)
        Resized frames; one that stays on screen is held once. None without video.
    shown : ndarray, int64, (T,)
        For each sample time, which of `frames` is on screen.
    sound : ndarray, float32, (S,)
        The audio: mono, at the model's own rate.
    blocks : ndarray, int64, (B,)
        Lengths of the blocks that it was decoded in.
    silent : bool
        `Clip.silent`.
    seen, heard : Told
        What reading the video and the audio told.
    """

    known: Known
    video_spec: VideoSpec
    audio_spec: AudioSpec
    chunk_seconds: float
    identity: str
    frames: np.ndarray | None
    shown: np.ndarray
    sound: np.ndarray
    blocks: np.ndarray
    silent: bool
    seen: Told
    heard: Told

    @classmethod
    def of(cls, clip: Clip, most: float = math.inf) -> ReadClip | None:
        """Read a clip to its end, its video first.

        Parameters
        ----------
        clip : Clip
            An open clip of which nothing was read yet.
        most : float
            Bytes that frames and audio may have.

        Returns
        -------
        ReadClip or None
            None if it would be larger than `most`. A clip whose header says so is not read.
            What cannot be decoded is no error here: it is raised where the clip is used.
        """
        if decoded_bytes(clip) > most:
            return None
        frames, shown, seen = _frames_of(clip)
        sound, blocks, heard = _sound_of(clip)
        read = cls(
            known=clip.known,
            video_spec=clip.spec.video,
            audio_spec=clip.spec.audio,
            chunk_seconds=clip.spec.chunk_seconds,
            identity=clip.identity,
            frames=frames,
            shown=shown,
            sound=sound,
            blocks=blocks,
            silent=clip.silent,
            seen=seen,
            heard=heard,
        )
        return read if read.bytes <= most else None  # a header may announce too little

    @property
    def bytes(self) -> int:
        """Bytes of frames and audio."""
        return self.sound.nbytes + (0 if self.frames is None else self.frames.nbytes)

    def opened(self, spec: MediaSpec) -> Clip:
        """Return the clip, open; the file is not touched.

        Parameters
        ----------
        spec : MediaSpec
            What the model asks of media. If it is not what the clip was read for, the clip that is
            returned reads the file again.
        """
        known = self.known
        clip = Clip(known.path, known.options, spec, known=known)
        if (self.video_spec, self.audio_spec, self.chunk_seconds) != (
            spec.video,
            spec.audio,
            spec.chunk_seconds,
        ):
            return clip
        clip.identity = self.identity
        clip.take_over(
            self._chunks(clip) if clip.has_video else None,
            self._blocks(clip) if clip.has_audio else None,
        )
        return clip

    def _chunks(self, clip: Clip) -> Generator[FrameChunk, None, None]:
        assert self.frames is not None
        assert clip.plan is not None
        count = clip.frames_per_chunk
        for first in range(0, len(self.shown), count):
            shown = self.shown[first : first + count]
            frames = torch.from_numpy(self.frames[shown])
            yield FrameChunk(first // count, frames, clip.plan.times[first : first + len(shown)])
        self.seen.tell(clip.video_notices)

    def _blocks(self, clip: Clip) -> Iterator[np.ndarray]:
        yield from np.split(self.sound, np.cumsum(self.blocks)[:-1]) if len(self.blocks) else ()
        clip.silent = self.silent
        self.heard.tell(clip.audio_notices)


def decoded_bytes(clip: Clip) -> float:
    """Return the bytes that a clip's frames and audio have, by its plan and the file's header.

    Parameters
    ----------
    clip : Clip

    Returns
    -------
    float
        Infinite if the header does not say how long the audio is.
    """
    frames = sound = 0.0
    if clip.plan is not None:
        height, width = clip.plan.size
        frames = 3.0 * height * width * len(clip.plan.times)
    if clip.has_audio:
        sound = 4.0 * clip.spec.audio.sampling_rate * clip.duration
    return frames + sound


def sendable(problem: Exception) -> Exception:
    """Return an error as it can be pickled.

    Errors of users are told in full by their text. Of any other, what is lost on the way is where
    it happened; it is added as a note, which tracebacks print.
    """
    if not isinstance(problem, OmniDropError):
        problem.add_note("".join(traceback.format_exception(problem)).rstrip())
    try:
        pickle.loads(pickle.dumps(problem))
    except Exception:
        return RuntimeError(f"{type(problem).__name__}: {problem}")
    return problem


def _told(notices: list[str], read: Callable[[], None]) -> Told:
    """Read, and return what that told; an error is kept to be raised where the clip is used."""
    problem: Exception | None = None
    try:
        read()
    except Exception as error:
        problem = sendable(error)
    return Told(tuple(notices), problem)


def _frames_of(clip: Clip) -> tuple[np.ndarray | None, np.ndarray, Told]:
    """Return the distinct frames, which of them is shown at each time, and what was told."""
    shown: list[int] = []
    if clip.plan is None:
        return None, np.array(shown, dtype=np.int64), Told()
    frames = np.empty((len(clip.plan.times), 3, *clip.plan.size), dtype=np.uint8)
    count = 0

    def read() -> None:
        nonlocal count
        for chunk in clip.frame_chunks():
            for frame in chunk.frames.numpy():
                if not count or not np.array_equal(frame, frames[count - 1]):
                    frames[count] = frame
                    count += 1
                shown.append(count - 1)

    told = _told(clip.video_notices, read)
    return frames[:count], np.array(shown, dtype=np.int64), told


def _sound_of(clip: Clip) -> tuple[np.ndarray, np.ndarray, Told]:
    """Return the audio, the lengths of its blocks, and what was told."""
    blocks: list[np.ndarray] = []

    def read() -> None:
        for block in clip.audio_blocks():
            blocks.append(block.copy())  # a decoder may use its buffer again

    told = _told(clip.audio_notices, read)
    sound = np.concatenate([np.empty(0, dtype=np.float32), *blocks])
    return sound, np.array([len(block) for block in blocks], dtype=np.int64), told
