"""What a model asks of media: patches of frames, log-mel of audio, and the length of a chunk.

Every other number of the same kind is derived here once. A model family supplies its own values;
the defaults are those of the reference processors of the built-in family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["AudioSpec", "MediaSpec", "VideoSpec"]

_PATCH = 14  # pixels along one side of a patch
_MERGE = 2  # patches along one side of a token
_TOKEN_AREA = (_PATCH * _MERGE) ** 2  # pixels of a frame that one token covers


@dataclass(frozen=True)
class VideoSpec:
    """What a vision tower asks of frames.

    Parameters
    ----------
    patch_size, temporal_patch_size, merge_size
        A patch is ``temporal_patch_size`` frames of ``patch_size``² pixels; ``merge_size``² patches
        make one token.
    min_pixels, max_pixels
        Limits on height x width of one resized frame.
    total_pixels
        Limit on the pixels of a whole clip, counted per temporal patch, or ``None`` for no limit.
    mean, std
        Per channel (R, G, B) of values in 0..1.
    """

    patch_size: int = _PATCH
    temporal_patch_size: int = 2
    merge_size: int = _MERGE
    min_pixels: int = 128 * _TOKEN_AREA
    max_pixels: int = 768 * _TOKEN_AREA
    total_pixels: int | None = int(128_000 * _TOKEN_AREA * 0.9)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def factor(self) -> int:
        """Pixels along one side of a token; resized frames are multiples of it."""
        return self.patch_size * self.merge_size

    def frames_per_chunk(self, seconds: float, fps: float) -> int:
        """Return the frames of a chunk of about so many seconds: whole temporal patches."""
        depth = self.temporal_patch_size
        return max(1, round(seconds * fps / depth)) * depth


@dataclass(frozen=True)
class AudioSpec:
    """What an audio tower asks of audio.

    Parameters
    ----------
    sampling_rate : int
        Samples per second.
    n_fft, hop : int
        Window and step of the short-time Fourier transform, in samples.
    n_mels : int
        Mel bands.
    padded_seconds : int
        The length the reference pads to. It matters only to audio that ends within its last
        frame, where the reference reflects the signal instead of continuing with zeros. 0 if the
        reference does not pad: then audio is reflected where it ends, and an incomplete frame is
        left out.
    """

    sampling_rate: int = 16_000
    n_fft: int = 400
    hop: int = 160
    n_mels: int = 128
    padded_seconds: int = 300

    @property
    def frames_per_second(self) -> float:
        """Log-mel frames per second."""
        return self.sampling_rate / self.hop

    def frames(self, samples: int) -> int:
        """Return the log-mel frames of so many samples; if padded, the last may be incomplete."""
        return -(-samples // self.hop) if self.padded_seconds else samples // self.hop


def _halved_twice(frames: int) -> int:
    """Return the tokens of so many log-mel frames: a convolution of stride 2, then pooling by 2."""
    return max(0, ((frames - 1) // 2 + 1 - 2) // 2 + 1)


@dataclass(frozen=True)
class MediaSpec:
    """What a model asks of a clip.

    Parameters
    ----------
    video : VideoSpec
    audio : AudioSpec
    chunk_seconds : float
        Length of a temporal chunk in seconds.
    audio_tokens : callable
        From a number of log-mel frames to the number of audio tokens.
    """

    video: VideoSpec = field(default_factory=VideoSpec)
    audio: AudioSpec = field(default_factory=AudioSpec)
    chunk_seconds: float = 2.0
    audio_tokens: Callable[[int], int] = _halved_twice

    def tokens_of_samples(self, samples: int) -> int:
        """Return the audio tokens of so many samples."""
        return self.audio_tokens(self.audio.frames(samples))
