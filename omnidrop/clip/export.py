"""The temporal chunks of a clip, and their export as PNG frames and WAV audio.

What `omnidrop chunks` writes is exactly what the model receives: sampled and resized frames, mono
audio at 16 kHz.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from omnidrop.clip.clip import Clip
from omnidrop.clip.container import as_path
from omnidrop.errors import UsageError

__all__ = ["Chunk", "chunks", "export_chunks"]


@dataclass(frozen=True)
class Chunk:
    """One temporal chunk: ``start`` and ``end`` in seconds from the clip's start."""

    index: int
    start: float
    end: float


def chunk_length(clip: Clip) -> float:
    """Return the seconds of a chunk: about ``spec.chunk_seconds``, whole temporal patches."""
    if clip.plan is None:
        return clip.spec.chunk_seconds
    fps = clip.plan.fps
    return clip.spec.video.frames_per_chunk(clip.spec.chunk_seconds, fps) / fps


def chunks(clip: Clip) -> list[Chunk]:
    """List the temporal chunks of a clip.

    Returns
    -------
    list of Chunk
        The last one ends with the clip.
    """
    length = chunk_length(clip)
    count = max(1, math.ceil(clip.duration / length - 1e-6))
    ends = [min((i + 1) * length, clip.duration) for i in range(count)]
    return [Chunk(i, i * length, end) for i, end in enumerate(ends)]


def export_chunks(clip: Clip, folder: Any) -> list[Path]:
    """Write every chunk's frames as PNG and its audio as 16-bit WAV.

    Files are named ``chunk-0003-frame-01.png`` and ``chunk-0003.wav``; nothing is overwritten.

    Parameters
    ----------
    clip : Clip
    folder : path-like
        Created if it does not exist.

    Returns
    -------
    list of Path
        The files written, in order of time.

    Raises
    ------
    UsageError
        If one of the files exists, or the folder cannot be written to.
    MediaError
        If the clip cannot be read.
    """
    target = as_path(folder)
    written: list[Path] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        for chunk in clip.frame_chunks():
            for number, frame in enumerate(chunk.frames.numpy()):
                name = f"chunk-{chunk.index:04d}-frame-{number:02d}.png"
                with (target / name).open("xb") as handle:
                    handle.write(png(frame.transpose(1, 2, 0)))
                written.append(target / name)
        rate = clip.spec.audio.sampling_rate
        for index, samples in enumerate(_regrouped(clip, round(chunk_length(clip) * rate))):
            path = target / f"chunk-{index:04d}.wav"
            with path.open("xb") as handle:
                soundfile.write(handle, samples, rate, format="WAV", subtype="PCM_16")
            written.append(path)
    except FileExistsError as error:
        raise UsageError(
            "This exists already, and is not overwritten.",
            path=error.filename or target,
            hint="Name an empty or a new folder.",
        ) from None
    except OSError as error:
        raise UsageError(
            f"The folder cannot be written to ({error.strerror}).",
            path=target,
            hint="Name another folder.",
        ) from None
    return sorted(written)


def _regrouped(clip: Clip, samples: int) -> Iterator[np.ndarray]:
    """Yield the audio in blocks of exactly so many samples; the last may be shorter."""
    rest = np.zeros(0, dtype=np.float32)
    for block in clip.audio_blocks():
        rest = np.concatenate([rest, block])
        while len(rest) >= samples:
            yield rest[:samples]
            rest = rest[samples:]
    if len(rest):
        yield rest


def png(image: np.ndarray) -> bytes:
    """Encode a picture as PNG, its rows unfiltered: any reader of a few lines can read it.

    Parameters
    ----------
    image : ndarray, uint8, (H, W, 3)
        RGB.

    Notes
    -----
    W3C, "Portable Network Graphics", 2nd ed.: eight bits, true colour, no filter.
    """
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + width * 3), dtype=np.uint8)
    rows[:, 1:] = image.reshape(height, width * 3)

    def part(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", body) + part(b"IEND", b"")
