"""Audio samples to log-mel features: what an audio tower reads.

The numbers equal those of the reference (``WhisperFeatureExtractor`` of transformers), without its
dependencies, its padding to 300 seconds and its cut at 300 seconds.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from omnidrop.clip.specs import AudioSpec

__all__ = ["LogMel", "LogMelPieces", "log_mel", "log_mel_stream", "mel_filters"]

_SPEC = AudioSpec()


@lru_cache(maxsize=8)
def mel_filters(spec: AudioSpec = _SPEC) -> Tensor:
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
    """Log-mel spectrogram of audio that arrives in blocks.

    ``push`` the samples in blocks of any size, then ``finish``. Beyond the spectrogram itself
    (51 KB per second) it holds about ten seconds of audio.

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
    on audio of up to 300 s, and to those of one with a longer ``chunk_length`` beyond: the audio is
    reflected at its start, padded with zeros at its end, and frames are clamped to 8 decades below
    the loudest point of the whole audio, the last partly silent frames included.
    """

    _BATCH = 1000  # frames in one transform: 10 s
    # Frames stored in one allocation. The system reclaims one this large when it is freed; small
    # ones between the transforms' own would fragment the heap.
    _SLAB = 70_000

    def __init__(self, spec: AudioSpec = _SPEC) -> None:
        self.spec = spec
        self._window = torch.hann_window(spec.n_fft)
        self._filters = mel_filters(spec)
        self._waiting: deque[np.ndarray] = deque()  # samples not yet in any frame
        self._held = 0
        self._started = False
        self._slabs: deque[Tensor] = deque()  # (_SLAB, n_mels) each; the last partly filled
        self._loudest = -math.inf
        self._frames = 0
        self._finished = False
        self.samples = 0

    def push(self, samples: np.ndarray | Tensor) -> None:
        """Add the next samples: float32, one-dimensional, any number of them."""
        if self._finished:
            raise ValueError("push() after finish()")
        block = _mono(samples)
        if not len(block):
            return
        self.samples += len(block)
        # A copy: the caller may reuse its buffer.
        self._waiting.append(block.copy())
        self._held += len(block)
        if self._held >= self._BATCH * self.spec.hop:
            self._transform()

    def finish(self) -> Tensor:
        """End the audio and return its features.

        Returns
        -------
        Tensor, float32, (n_mels, F)
            F as `AudioSpec.frames` counts.
        """
        if self._finished:
            raise ValueError("finish() was called before")
        spec, count = self.spec, self.samples
        self._finished = True
        valid = spec.frames(count)
        features = torch.empty((spec.n_mels, valid))
        if not count:
            return features
        half = spec.n_fft // 2
        padded = spec.padded_seconds * spec.sampling_rate if spec.padded_seconds else count
        if half < count and padded - half <= count <= padded:
            self._append(np.zeros(padded - count, dtype=np.float32))
            tail = self._take_all()
            self._append(tail)
            self._append(tail[-2 : -half - 2 : -1].copy())
            self._transform(limit=padded // spec.hop)
        else:
            # One frame beyond the last sample, so that the loudest frame is among them.
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
        """Compute every frame the samples allow; keep the samples that later frames need."""
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
        """Append frames, (n, n_mels)."""
        while len(rows):
            place = self._frames % self._SLAB
            if not place:
                self._slabs.append(torch.empty((self._SLAB, self.spec.n_mels)))
            fitting = rows[: self._SLAB - place]
            self._slabs[-1][place : place + len(fitting)] = fitting
            self._frames += len(fitting)
            rows = rows[len(fitting) :]


class LogMelPieces:
    """Log-mel spectrogram of audio that a model reads in pieces; used like `LogMel`.

    Parameters
    ----------
    spec : AudioSpec
        With `piece_seconds`.

    Notes
    -----
    Equal to ``WhisperFeatureExtractor(chunk_length=piece_seconds)`` on each piece by itself: padded
    with silence, reflected at both ends, and clamped below the piece's own loudest point.
    """

    def __init__(self, spec: AudioSpec) -> None:
        self.spec = spec
        self.samples = 0
        self._length = spec.piece_seconds * spec.sampling_rate
        # A whole piece loses its last frame and is reflected at its end, as audio without padding.
        self._whole = replace(spec, piece_seconds=0, padded_seconds=0)
        self._piece = LogMel(self._whole)
        self._features: list[Tensor] = []
        self._finished = False

    def push(self, samples: np.ndarray | Tensor) -> None:
        """Add the next samples; see `LogMel.push`."""
        if self._finished:
            raise ValueError("push() after finish()")
        block = _mono(samples)
        self.samples += len(block)
        while len(block):
            fitting = block[: self._length - self._piece.samples]
            self._piece.push(fitting)
            block = block[len(fitting) :]
            if self._piece.samples == self._length:
                self._next()

    def finish(self) -> Tensor:
        """End the audio and return the features of whole pieces; see `LogMel.finish`."""
        if self._finished:
            raise ValueError("finish() was called before")
        self._finished = True
        if self._piece.samples:
            self._piece.push(np.zeros(self._length - self._piece.samples, dtype=np.float32))
            self._next()
        if not self._features:
            return torch.empty((self.spec.n_mels, 0))
        return torch.cat(self._features, dim=1)

    def _next(self) -> None:
        self._features.append(self._piece.finish())
        self._piece = LogMel(self._whole)


def log_mel_stream(spec: AudioSpec = _SPEC) -> LogMel | LogMelPieces:
    """Return what computes the features that `spec` describes."""
    return LogMelPieces(spec) if spec.piece_seconds else LogMel(spec)


def log_mel(audio: np.ndarray | Tensor, spec: AudioSpec = _SPEC) -> Tensor:
    """Log-mel spectrogram of a whole audio signal.

    Parameters
    ----------
    audio : array or Tensor, float32, (S,)
        Mono, at ``spec.sampling_rate``, in -1..1.

    Returns
    -------
    Tensor, float32, (n_mels, F)
        F as `AudioSpec.frames` counts; see `LogMel` and `LogMelPieces`.
    """
    stream = log_mel_stream(spec)
    samples = _mono(audio)
    step = LogMel._BATCH * spec.hop
    for start in range(0, len(samples), step):
        stream.push(samples[start : start + step])
    return stream.finish()


def _mono(samples: np.ndarray | Tensor) -> np.ndarray:
    """Return samples as a float32 array; `ValueError` if it has more than one dimension."""
    block = np.asarray(samples, dtype=np.float32)
    if block.ndim != 1:
        raise ValueError(f"audio must be one-dimensional, not of shape {block.shape}")
    return block
