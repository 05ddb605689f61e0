"""Write clips as .mp4 files with H.264 video and AAC audio, through PyAV."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .picture import background, draw_frame, draw_frames, frame_times
from .sound import RATE, Bank, load_bank, render_sound
from .world import Clip

FPS = 8
SOUND_RATE = 48_000


def write_mp4(
    path: Path,
    frames: np.ndarray | None,
    audio: np.ndarray | None,
    fps: int = FPS,
    crf: int = 23,
    kbits: int = 96,
) -> None:
    """Encode frames, uint8 (T, H, W, 3), and mono audio at 16 kHz; either may be None."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        video = sound = None
        if frames is not None:
            video = out.add_stream("libx264", rate=fps)
            video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
            video.options = {"crf": str(crf), "preset": "medium"}
            video.time_base = Fraction(1, fps)
        if audio is not None:
            sound = out.add_stream("aac", rate=SOUND_RATE, layout="mono")
            sound.bit_rate = kbits * 1000
        if video is not None:
            for i, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, fps)
                out.mux(video.encode(frame))
            out.mux(video.encode())
        if sound is not None:
            _mux_sound(out, sound, audio)


def _mux_sound(out: Any, stream: Any, audio: np.ndarray) -> None:
    """Encode 16 kHz mono audio into a stream of an open PyAV output."""
    import av

    resampler = av.AudioResampler(
        format="fltp", layout="mono", rate=SOUND_RATE, frame_size=stream.frame_size or 1024
    )
    raw = av.AudioFrame.from_ndarray(audio[None].astype(np.float32), format="fltp", layout="mono")
    raw.sample_rate, raw.pts, raw.time_base = RATE, 0, Fraction(1, RATE)
    for piece in (*resampler.resample(raw), *resampler.resample(None)):
        out.mux(stream.encode(piece))
    out.mux(stream.encode())


def through_aac(audio: np.ndarray, kbits: int = 96) -> np.ndarray:
    """Encode audio as AAC and decode it again; the result is 16 kHz and has the same length."""
    import io

    import av

    box = io.BytesIO()
    with av.open(box, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=SOUND_RATE, layout="mono")
        stream.bit_rate = kbits * 1000
        _mux_sound(out, stream, audio)
    box.seek(0)
    back = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    parts = []
    with av.open(box) as got:
        for frame in got.decode(audio=0):
            parts += [f.to_ndarray().reshape(-1) for f in back.resample(frame)]
        parts += [f.to_ndarray().reshape(-1) for f in back.resample(None)]
    sound = np.concatenate(parts)[: len(audio)]
    return np.pad(sound, (0, len(audio) - len(sound))).astype(np.float32)


def render(
    clip: Clip,
    bank: Bank | None = None,
    fps: int = FPS,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the frames of a clip at `fps` and its audio, before any encoding."""
    frames = None
    if clip.shapes is not None:
        ground = background(clip)
        times = np.arange(math.ceil(round(clip.duration * fps, 6))) / fps
        frames = np.stack([draw_frame(clip, float(t), ground) for t in times])
    return frames, render_sound(clip, bank or load_bank("test"))


def write_clip(path: Path, clip: Clip, bank: Bank | None = None) -> None:
    """Render a clip and encode it."""
    frames, audio = render(clip, bank)
    write_mp4(path, frames, audio)


def fingerprint(clip: Clip, bank: Bank | None = None) -> str:
    """Return a hash of the clip before encoding: of its frames at 2 fps and its audio samples."""
    digest = hashlib.sha256(repr(clip).encode())
    if clip.shapes is not None:
        digest.update(draw_frames(clip, frame_times(clip.duration)).tobytes())
    sound = render_sound(clip, bank or load_bank("test"))
    if sound is not None:
        digest.update(np.rint(sound * 32768).astype("<i2").tobytes())
    return digest.hexdigest()[:16]
