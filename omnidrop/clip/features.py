"""Frames to patches, samples to log-mel: what the model's towers read.

The numbers equal those of the reference processors of Qwen2.5-Omni (``Qwen2VLVideoProcessor`` and
``WhisperFeatureExtractor`` of transformers), without their dependencies, and for sound without
their 300 seconds of padding and without their cut at 300 seconds. Everything here is a pure
function of tensors; no file is opened and no model is known beyond a sampling contract.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from omnidrop.errors import MediaError

__all__ = [
    "AudioSpec",
    "LogMel",
    "VideoSpec",
    "audio_token_count",
    "log_mel",
    "mel_filters",
    "patches",
    "resize_frames",
    "target_size",
]

MAX_ASPECT_RATIO = 200
"""The reference refuses frames longer than this many times their width."""


@dataclass(frozen=True)
class VideoSpec:
    """What a vision tower asks of frames. Defaults: the reference processor of Qwen2.5-Omni.

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

    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    total_pixels: int | None = int(128_000 * 28 * 28 * 0.9)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @property
    def factor(self) -> int:
        """Pixels along one side of a token; resized frames are multiples of it."""
        return self.patch_size * self.merge_size


@dataclass(frozen=True)
class AudioSpec:
    """What an audio tower asks of sound. Defaults: the feature extractor of Qwen2.5-Omni.

    Parameters
    ----------
    sampling_rate : int
        Samples per second.
    n_fft, hop : int
        Window and step of the short-time Fourier transform, in samples.
    n_mels : int
        Mel bands.
    padded_seconds : int
        The length the reference pads to. It matters only to a sound that ends within its last
        frame, where the reference reflects the signal instead of continuing with zeros.
    """

    sampling_rate: int = 16_000
    n_fft: int = 400
    hop: int = 160
    n_mels: int = 128
    padded_seconds: int = 300


def target_size(
    height: int,
    width: int,
    frames: int,
    spec: VideoSpec = VideoSpec(),
    max_pixels: int | None = None,
    min_pixels: int | None = None,
) -> tuple[int, int]:
    """Size to which the frames of a clip are resized.

    Both sides are multiples of ``spec.factor``, the area lies within the pixel limits, and the
    aspect ratio stays as near as that allows. Each frame gets at most an even share of
    ``spec.total_pixels``, though never less than 1.05 times the lower limit.

    Parameters
    ----------
    height, width : int
        Size of the decoded frame, rotation applied.
    frames : int
        How many frames the whole clip yields.
    max_pixels, min_pixels : int, optional
        Replace the limits of ``spec``. A ``max_pixels`` below the lower limit lowers it too.

    Returns
    -------
    (height, width) : tuple of int

    Raises
    ------
    MediaError
        If one side is more than 200 times the other.

    Notes
    -----
    ``smart_resize`` and the cap of ``Qwen2VLVideoProcessor(cap_pixels_per_frame=True)``, which is
    what qwen-vl-utils does.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise MediaError(
            f"The picture is {width}x{height}, and the model takes no frame more than "
            f"{MAX_ASPECT_RATIO} times longer than it is wide.",
            hint="Crop the video, or leave the picture out (--no-video) if there is sound.",
        )
    upper = spec.max_pixels if max_pixels is None else max_pixels
    lower = min(spec.min_pixels, upper) if min_pixels is None else min_pixels
    if spec.total_pixels is not None:
        share = spec.total_pixels * spec.temporal_patch_size // max(frames, 1)
        upper = min(upper, max(share, int(lower * 1.05)))
    factor = spec.factor
    new_height = round(height / factor) * factor
    new_width = round(width / factor) * factor
    if new_height * new_width > upper:
        shrink = math.sqrt(height * width / upper)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < lower:
        enlarge = math.sqrt(lower / (height * width))
        new_height = math.ceil(height * enlarge / factor) * factor
        new_width = math.ceil(width * enlarge / factor) * factor
    # With a lower limit of next to nothing a thin frame would round to no pixels at all.
    return max(new_height, factor), max(new_width, factor)


def resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize frames as the reference does: bicubic with antialiasing, on the bytes themselves.

    Parameters
    ----------
    frames : Tensor, uint8, (T, 3, H, W)
    size : (height, width)

    Returns
    -------
    Tensor, uint8, (T, 3, height, width)

    Notes
    -----
    The same in float32 is off by one grey level in places.
    """
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    return torch.nn.functional.interpolate(
        frames, size=tuple(size), mode="bicubic", align_corners=False, antialias=True
    )


def patches(frames: Tensor, spec: VideoSpec = VideoSpec()) -> tuple[Tensor, tuple[int, int, int]]:
    """Normalise resized frames and cut them into the patches that the vision tower reads.

    Parameters
    ----------
    frames : Tensor, uint8, (T, 3, H, W)
        H and W multiples of ``spec.factor``. If T is no multiple of the temporal patch, the last
        frame is repeated.

    Returns
    -------
    patches : Tensor, float32, (t * h * w, 3 * temporal_patch_size * patch_size²)
        In the order of the tower: by time, then by token, then within a token.
    grid : (t, h, w)
        In patches.

    Raises
    ------
    ValueError
        If the frames have another type or shape than above.
    """
    size, depth, merge = spec.patch_size, spec.temporal_patch_size, spec.merge_size
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames must be uint8 (T, 3, H, W), not {frames.dtype} {frames.shape}")
    count, channels, height, width = frames.shape
    if count == 0 or height % spec.factor or width % spec.factor:
        raise ValueError(f"cannot cut {count} frames of {height}x{width} into {spec.factor}s")
    if odd := -count % depth:
        frames = torch.cat([frames, frames[-1:].expand(odd, -1, -1, -1)])
    grid = (len(frames) // depth, height // size, width // size)
    # Mean and deviation scaled to bytes, as the reference folds its division by 255 into them.
    mean = (torch.tensor(spec.mean) * 255.0).view(1, 3, 1, 1)
    std = (torch.tensor(spec.std) * 255.0).view(1, 3, 1, 1)
    values = frames.to(torch.float32).sub_(mean).div_(std)
    values = values.view(
        grid[0], depth, channels, grid[1] // merge, merge, size, grid[2] // merge, merge, size
    )
    values = values.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return values.reshape(grid[0] * grid[1] * grid[2], channels * depth * size * size), grid


@lru_cache(maxsize=8)
def mel_filters(spec: AudioSpec = AudioSpec()) -> Tensor:
    """Triangular mel filters: Slaney's scale, each of unit area, up to half the sampling rate.

    Returns
    -------
    Tensor, float32, (n_mels, n_fft // 2 + 1)

    Notes
    -----
    Slaney, "Auditory Toolbox" (1998): linear below 1 kHz, logarithmic above; as in Whisper.
    """
    step, corner, growth = 200.0 / 3.0, 1000.0, np.log(6.4) / 27.0
    top = spec.sampling_rate / 2.0
    top_mel = corner / step + np.log(top / corner) / growth if top >= corner else top / step
    mels = np.linspace(0.0, top_mel, spec.n_mels + 2)
    edges = np.where(
        mels < corner / step, mels * step, corner * np.exp(growth * (mels - corner / step))
    )
    bins = np.linspace(0.0, top, spec.n_fft // 2 + 1)
    slopes = edges[:, None] - bins[None, :]
    width = np.diff(edges)[:, None]
    filters = np.maximum(0.0, np.minimum(-slopes[:-2] / width[:-1], slopes[2:] / width[1:]))
    filters *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(filters.astype(np.float32))


class LogMel:
    """Log-mel spectrogram of a sound that arrives in pieces.

    ``push`` the samples in blocks of any size, then ``finish``. Beyond the spectrogram itself
    (51 KB a second) it holds about ten seconds of sound.

    Parameters
    ----------
    spec : AudioSpec

    Examples
    --------
    >>> mel = LogMel()
    >>> for block in blocks:  # float32, mono, 16 kHz
    ...     mel.push(block)
    >>> features = mel.finish()  # (128, F)

    Notes
    -----
    Equal to the valid frames of ``WhisperFeatureExtractor(feature_size=128, chunk_length=300)``
    on a sound of up to 300 s, and to those of one with a longer ``chunk_length`` beyond: the sound
    is reflected at its start, goes on with zeros at its end, and frames are clamped to 8 decades
    below the loudest point of the whole sound, the last partly silent frames included.
    """

    _BATCH = 1000  # frames in one transform: 10 s
    # Frames kept together. So large a piece of memory is given back to the system when it is freed;
    # small ones between the transforms' own would leave holes that nothing fits.
    _SLAB = 70_000

    def __init__(self, spec: AudioSpec = AudioSpec()) -> None:
        self.spec = spec
        self._window = torch.hann_window(spec.n_fft)
        self._filters = mel_filters(spec)
        self._waiting: deque[np.ndarray] = deque()  # samples no frame has been made of yet
        self._held = 0
        self._started = False
        self._slabs: deque[Tensor] = deque()  # (_SLAB, n_mels) each, filled up to the last
        self._loudest = -math.inf
        self._frames = 0
        self._finished = False
        self.samples = 0

    def push(self, samples: np.ndarray | Tensor) -> None:
        """Take the next samples: float32, one-dimensional, any number of them."""
        if self._finished:
            raise ValueError("push() after finish()")
        block = np.asarray(samples, dtype=np.float32)
        if block.ndim != 1:
            raise ValueError(f"sound must be one-dimensional, not of shape {block.shape}")
        if not len(block):
            return
        self.samples += len(block)
        # A copy, for the caller may use its buffer again.
        self._waiting.append(block.copy())
        self._held += len(block)
        if self._held >= self._BATCH * self.spec.hop:
            self._transform()

    def finish(self) -> Tensor:
        """End the sound and return its features.

        Returns
        -------
        Tensor, float32, (n_mels, F)
            F = samples / hop, rounded up.
        """
        if self._finished:
            raise ValueError("finish() was called before")
        spec, count = self.spec, self.samples
        self._finished = True
        valid = -(-count // spec.hop)
        features = torch.empty((spec.n_mels, valid))
        if not count:
            return features
        half = spec.n_fft // 2
        padded = spec.padded_seconds * spec.sampling_rate
        if padded - half <= count <= padded:
            self._append(np.zeros(padded - count, dtype=np.float32))
            tail = self._take_all()
            self._append(tail)
            self._append(tail[-2 : -half - 2 : -1].copy())
            self._transform(limit=padded // spec.hop)
        else:
            # One frame more than the sound reaches into, so that its loudest frame is among them.
            self._append(np.zeros(2 * spec.n_fft, dtype=np.float32))
            self._transform()
        place = 0
        while self._slabs and place < valid:
            rows = self._slabs.popleft()[: valid - place]
            features[:, place : place + len(rows)] = rows.T
            place += len(rows)
        self._slabs.clear()
        return features.clamp_(min=self._loudest - 8.0).add_(4.0).div_(4.0)

    def _append(self, block: np.ndarray) -> None:
        self._waiting.append(block)
        self._held += len(block)

    def _take_all(self) -> np.ndarray:
        samples = np.concatenate(self._waiting)
        self._waiting.clear()
        self._held = 0
        return samples

    def _transform(self, limit: int | None = None) -> None:
        """Make every frame that the samples at hand allow; keep the samples later frames need."""
        spec = self.spec
        samples = self._take_all()
        if not self._started:
            half = spec.n_fft // 2
            samples = np.concatenate([samples[half:0:-1], samples])
            self._started = True
        frames = (len(samples) - spec.n_fft) // spec.hop + 1
        if limit is not None:
            frames = min(frames, limit - self._frames)
        for first in range(0, frames, self._BATCH):
            count = min(self._BATCH, frames - first)
            begin = first * spec.hop
            piece = samples[begin : begin + (count - 1) * spec.hop + spec.n_fft]
            spectrum = torch.stft(
                torch.from_numpy(piece),
                spec.n_fft,
                spec.hop,
                window=self._window,
                center=False,
                return_complex=True,
            )
            power = spectrum.abs().square_()
            block = (self._filters @ power).clamp_(min=1e-10).log10_()
            self._loudest = max(self._loudest, float(block.max()))
            self._keep(block.T)
        self._append(samples[frames * spec.hop :].copy())

    def _keep(self, rows: Tensor) -> None:
        """Store frames, (n, n_mels), behind those stored before."""
        while len(rows):
            place = self._frames % self._SLAB
            if not place:
                self._slabs.append(torch.empty((self._SLAB, self.spec.n_mels)))
            fitting = rows[: self._SLAB - place]
            self._slabs[-1][place : place + len(fitting)] = fitting
            self._frames += len(fitting)
            rows = rows[len(fitting) :]


def log_mel(audio: np.ndarray | Tensor, spec: AudioSpec = AudioSpec()) -> Tensor:
    """Log-mel spectrogram of a whole sound.

    Parameters
    ----------
    audio : array or Tensor, float32, (S,)
        Mono, at ``spec.sampling_rate``, in -1..1.

    Returns
    -------
    Tensor, float32, (n_mels, F)
        F = S / hop, rounded up; see `LogMel`.
    """
    stream = LogMel(spec)
    samples = np.asarray(audio, dtype=np.float32)
    step = LogMel._BATCH * spec.hop
    if samples.ndim != 1:
        raise ValueError(f"sound must be one-dimensional, not of shape {samples.shape}")
    for start in range(0, len(samples), step):
        stream.push(samples[start : start + step])
    return stream.finish()


def audio_token_count(mel_frames: int) -> int:
    """Tokens the audio tower makes of so many mel frames: halved by a convolution, then pooled.

    Notes
    -----
    ``_get_feat_extract_output_lengths`` of transformers; 100 frames a second become 25 tokens.
    """
    return max(0, ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1)
