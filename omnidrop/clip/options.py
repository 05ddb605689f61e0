"""Options of a clip and the values it yields: frozen, checked when made."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.errors import UsageError
from omnidrop.options import check_size

if TYPE_CHECKING:  # the command line reads defaults before torch is imported
    import numpy as np
    from torch import Tensor

    from omnidrop.clip.specs import VideoSpec

#: Frames per second that are sampled, lowest and highest.
SLOWEST, FASTEST = 1e-6, 10_000

#: Options that count something.
_COUNTS = ("min_frames", "max_frames", "min_pixels", "max_pixels", "video_track", "audio_track")

#: Latest second of a clip: about thirty years.
LONGEST = 10**9

__all__ = ["ClipOptions", "FrameChunk", "SamplingPlan", "Stopwatch"]


@dataclass(frozen=True)
class ClipOptions:
    """Which part of a media file is read, and how it is sampled.

    Parameters
    ----------
    start, end : float, optional
        Seconds from the beginning of the clip.
    fps : float, optional
        Frames sampled per second; by default as the model asks for, usually 2.
    min_frames, max_frames : int, optional
        Limits on the number of frames; where one applies, the true rate differs from ``fps``. By
        default the model's, usually 4 and 768.
    min_pixels, max_pixels : int, optional
        Limits on the area of a resized frame, in place of the model's own.
    still : int
        Grey levels by which every pixel of two frames may differ for them to count as the same
        frame, which is encoded once. 0, the default, merges exact repeats only and changes no
        result.
    square_pixels : bool
        Take pixels as square whatever the file says, as the model family's reference does.
    video, audio : bool
        Whether to use video and audio.
    video_track : int, optional
        Number of the video track, from 0; by default the one that a player would show.
    audio_track : int, optional
        Number of the audio track, from 0; by default the one that a player would choose, unless it
        is silent and another is not.
    audio_file : path-like, optional
        Another file to take the audio from; it starts with the clip.

    Raises
    ------
    UsageError
        If a value is not valid.
    """

    start: float | None = None
    end: float | None = None
    fps: float | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    still: int = 0
    square_pixels: bool = False
    video: bool = True
    audio: bool = True
    video_track: int | None = None
    audio_track: int | None = None
    audio_file: Path | str | None = None

    def __post_init__(self) -> None:
        for name in ("start", "end", "fps"):
            value = getattr(self, name)
            if value is not None and not -math.inf < value < math.inf:
                raise UsageError(f"{name} must be a number, not {value}.")
            check_size(name, value or 0, FASTEST if name == "fps" else LONGEST)
        if self.fps is not None and self.fps <= 0:
            raise UsageError(
                f"fps must be above 0, not {self.fps:g}.", hint="Without it, the model's is used."
            )
        if self.fps is not None and self.fps < SLOWEST:
            raise UsageError("fps is too small.", hint=f"Give at least {SLOWEST:g}.")
        if self.start is not None and self.start < 0:
            raise UsageError(f"start must not be negative, but is {self.start:g} s.")
        if self.end is not None and self.end <= (self.start or 0.0):
            raise UsageError(
                f"end ({self.end:g} s) must come after start ({self.start or 0:g} s).",
                hint="Both count from the beginning of the clip.",
            )
        for name in _COUNTS:
            check_size(name, getattr(self, name) or 0)
        for name in ("max_frames", "min_frames", "min_pixels", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}.")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise UsageError(
                f"min_pixels ({self.min_pixels}) is above max_pixels ({self.max_pixels})."
            )
        if not 0 <= self.still < 256:
            raise UsageError(
                f"still must be between 0 and 255 grey levels, not {self.still}.",
                hint="16 ignores what x264 repaints at a key frame.",
            )
        if not self.video and not self.audio:
            raise UsageError(
                "Without video and without audio nothing is left of the clip.",
                hint="Leave out one of the two at most.",
            )
        for name in ("video_track", "audio_track"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(
                    f"{name} must be 0 or more, not {value}.", hint="0 is the first track."
                )
        if self.audio_file is not None and not self.audio:
            raise UsageError("An audio file is named, but audio is left out.")

    def resolved(self, spec: VideoSpec) -> ClipOptions:
        """Return the same options with the model's sampling where none is given."""
        return replace(
            self,
            fps=self.fps if self.fps is not None else spec.fps,
            min_frames=self.min_frames if self.min_frames is not None else spec.min_frames,
            max_frames=self.max_frames if self.max_frames is not None else spec.max_frames,
        )


@dataclass(frozen=True, eq=False)
class SamplingPlan:
    """Which frames are sampled.

    Parameters
    ----------
    fps : float
        The true sampling rate: as asked, or as changed by a limit on the number of frames.
    times : ndarray, float64, (T,)
        Seconds from the clip's start, ``k / fps``; T is a whole number of temporal patches.
    size : (height, width)
        Size that frames are resized to.
    """

    fps: float
    times: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class FrameChunk:
    """Consecutive frames: ``frames`` uint8 (n, 3, H, W), resized; ``times`` float64 (n,), s."""

    index: int
    frames: Tensor
    times: np.ndarray


class Stopwatch:
    """Sums the time that threads spend inside it; a context manager.

    Attributes
    ----------
    seconds : float
        Mean wall-clock seconds per thread.
    """

    def __init__(self) -> None:
        self._spent: dict[int, float] = {}
        self._here = threading.local()

    def __enter__(self) -> None:
        self._here.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        here = threading.get_ident()
        spent = time.perf_counter() - self._here.began
        self._spent[here] = self._spent.get(here, 0.0) + spent

    @property
    def seconds(self) -> float:
        return sum(self._spent.values()) / max(1, len(self._spent))

    def timing(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return the function with the time of every call summed here."""

        def timed(value: Tensor) -> Tensor:
            with self:
                return function(value)

        return timed
