"""Seconds from a file to its sampled frames and sound: OmniDrop against decoding everything.

The clips are 1080p30 H.264 (x264's B-frames, a key frame every 250 pictures or fewer) with AAC at
48 kHz: a textured picture that pans, 60 s, 10 min and 60 min long. Twenty seconds of it are encoded
and their packets repeated, so that making an hour takes seconds.

Three ways to the same frames and the same sound, in turn, in one process:

omnidrop    `read_whole`, opening included
everything  PyAV with its defaults: every packet decoded in one pass, up to the end of what is asked
            for; only the frames chosen are converted to RGB and resized, as here
converted   (up to a minute) every frame converted with `to_ndarray`, as a first script would
seeking     (for a span) PyAV with its defaults after a seek to the key frame before it

    python benchmarks/decoding.py [--work DIR] [--cases 60s 10min span] [--repeats 5]

With --work the clips (about 1 GB with the hour) are kept for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch

from omnidrop.clip.clip import Clip, ClipOptions, open_clip
from omnidrop.clip.frames.packets import CLOCK_SLACK
from omnidrop.clip.patches import resize_frames
from omnidrop.testing.whole_clip import read_whole

FPS, RATE, WIDTH, HEIGHT = 30, 48_000, 1920, 1080
LOOP = 20  # seconds of picture encoded
SPAN = 120.0, 125.0  # the later it lies, the larger the ratio
CASES = {"60s": (60, ClipOptions()), "10min": (600, ClipOptions()), "span": (3600, ClipOptions(start=SPAN[0], end=SPAN[1]))}  # fmt: skip  # noqa: E501

Read = tuple[torch.Tensor, np.ndarray]


def texture(seed: int = 0) -> np.ndarray:
    """Return a picture with detail at all scales, larger than a frame: uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    total = np.zeros((HEIGHT + 512, WIDTH + 1024), dtype=np.float32)
    for scale in (4, 16, 64, 256):
        shape = tuple(-(-side // scale) for side in total.shape)
        part = rng.standard_normal(shape).astype(np.float32)
        part = torch.nn.functional.interpolate(
            torch.from_numpy(part)[None, None], size=total.shape, mode="bilinear"
        )
        total += part[0, 0].numpy() * (8 + scale / 12)
    return (128 + total).clip(16, 235).astype(np.uint8)


def make_loop(path: Path) -> None:
    """Encode the picture that is repeated."""
    luma, chroma = texture(), texture(1)[::2, ::2] // 2 + 64
    rng = np.random.default_rng(2)
    grain = rng.integers(-4, 5, (HEIGHT + 64, WIDTH + 64), dtype=np.int16)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(LOOP * FPS):
            angle = 2 * np.pi * number / (LOOP * FPS)
            x, y = int(500 + 480 * np.sin(angle)) & ~1, int(250 + 240 * np.sin(2 * angle)) & ~1
            dx, dy = rng.integers(0, 64, 2)
            frame = np.empty((HEIGHT * 3 // 2, WIDTH), dtype=np.uint8)
            frame[:HEIGHT] = (
                luma[y : y + HEIGHT, x : x + WIDTH] + (grain[dy : dy + HEIGHT, dx : dx + WIDTH])
            )
            top, left = number * 3 % (HEIGHT - 200), number * 5 % (WIDTH - 200)
            frame[top : top + 200, left : left + 200] = 16 + number % 200
            colour = chroma[y // 2 : y // 2 + HEIGHT // 2, x // 2 : x // 2 + WIDTH // 2]
            frame[HEIGHT : HEIGHT * 5 // 4] = colour.reshape(HEIGHT // 4, WIDTH)
            frame[HEIGHT * 5 // 4 :] = 255 - colour.reshape(HEIGHT // 4, WIDTH)
            image = av.VideoFrame.from_ndarray(frame, format="yuv420p")
            image.pts, image.time_base = number, Fraction(1, FPS)
            out.mux(video.encode(image))
        out.mux(video.encode(None))


def once(path: Path, make: Callable[[Path], None]) -> None:
    """Make a file unless it is there; a half-written one is never taken for it."""
    if not path.exists():
        part = path.with_suffix(".part.mp4")
        make(part)
        part.rename(path)


def make_clip(path: Path, loop: Path, seconds: int) -> None:
    """Write a clip of so many seconds, a multiple of the loop."""
    with av.open(str(loop)) as source, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        audio = out.add_stream("aac", rate=RATE, layout="stereo")
        step = np.arange(RATE) / RATE
        for second in range(seconds):
            tone = 0.3 * np.sin(2 * np.pi * (200 + 7 * (second % 90)) * step)
            wave = np.stack([tone, 0.5 * tone]).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(wave, "fltp", "stereo")
            sound.sample_rate, sound.pts, sound.time_base = RATE, second * RATE, Fraction(1, RATE)
            out.mux(audio.encode(sound))
            if second % LOOP:
                continue
            source.seek(0)
            for packet in source.demux(video=0):
                if packet.dts is None:
                    continue
                packet.pts += int(second / packet.time_base)
                packet.dts += int(second / packet.time_base)
                packet.stream = video
                out.mux(packet)
        out.mux(audio.encode(None))


def naive(
    path: Path, clip: Clip, *, convert: bool = False, seek: float | None = None
) -> tuple[torch.Tensor, np.ndarray]:
    """Frames and sound by PyAV with its defaults; what is chosen equals what a `Clip` chooses."""
    assert clip.plan is not None
    end = clip.start + clip.duration
    moments = (clip.plan.times + clip.start).tolist()
    frames: list[torch.Tensor] = []
    sounds: list[np.ndarray] = []
    held, first = None, None
    heard = seen = 0.0
    with av.open(str(path)) as container:
        if seek is not None:
            container.seek(int(max(0.0, seek) * av.time_base))
        resampler = av.AudioResampler("fltp", "stereo", 16_000)
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.AudioFrame):
                heard = frame.time
                first = heard if first is None else first
                if heard <= end:
                    frame.pts = None
                    sounds += [part.to_ndarray() for part in resampler.resample(frame)]
                continue
            if convert:
                frame = (frame.time, frame.to_ndarray(format="rgb24"))
            seen = frame[0] if convert else frame.time
            while len(frames) < len(moments) and seen > moments[len(frames)] + CLOCK_SLACK:
                frames.append(chosen(frame if held is None else held, clip.plan.size))
            held = frame
            if min(seen, heard) > end + 0.1:
                break
        while len(frames) < len(moments):
            frames.append(chosen(held, clip.plan.size))
        sounds += [part.to_ndarray() for part in resampler.resample(None)]
    sound = np.concatenate(sounds, axis=1).mean(axis=0)
    begin = round((clip.start - (first or 0.0)) * 16_000)
    return torch.cat(frames), sound[begin : begin + round(clip.duration * 16_000)]


def chosen(frame: object, size: tuple[int, int]) -> torch.Tensor:
    """Convert a frame, or take it as converted, and resize it."""
    array = frame[1] if isinstance(frame, tuple) else frame.to_ndarray(format="rgb24")
    return resize_frames(torch.from_numpy(array).permute(2, 0, 1)[None], size)


def own(path: Path, options: ClipOptions) -> Read:
    """Frames and sound by the library."""
    with open_clip(path, options) as clip:
        data = read_whole(clip)
    return data.frames, data.audio.numpy()


def check(expected: Read, given: Read, whole: bool) -> None:
    """Frames must be equal; so must sound, up to half a sample where reading began inside."""
    if not torch.equal(expected[0], given[0]):
        raise SystemExit("the frames differ")
    length = min(len(expected[1]), len(given[1]))
    if abs(len(expected[1]) - len(given[1])) > 0.1 * 16_000:
        raise SystemExit(f"{len(given[1])} samples, not {len(expected[1])}")
    apart = float(np.abs(expected[1][:length] - given[1][:length]).max())
    if apart > (1e-6 if whole else 0.04):
        raise SystemExit(f"the sound differs by {apart}")


def measure(path: Path, options: ClipOptions, repeats: int) -> dict[str, object]:
    """Run all ways in turn; medians of seconds and of processor seconds, and their ratios."""
    with open_clip(path, options) as clip:
        ways: dict[str, Callable[[], Read]] = {
            "omnidrop": lambda: own(path, options),
            "everything": lambda: naive(path, clip),
        }
        if clip.duration <= 60:
            ways["converted"] = lambda: naive(path, clip, convert=True)
        if options.start:
            ways["seeking"] = lambda: naive(path, clip, seek=options.start)
        expected = ways["everything"]()
        check(expected, own(path, options), whole=not options.start)
        clocks = {"seconds": time.perf_counter, "processor": time.process_time}
        taken: dict[str, dict[str, list[float]]] = {
            clock: {name: [] for name in ways} for clock in clocks
        }
        for _ in range(repeats):
            for name, way in ways.items():
                before = {clock: now() for clock, now in clocks.items()}
                way()
                for clock, now in clocks.items():
                    taken[clock][name].append(now() - before[clock])
    median = {
        clock: {name: statistics.median(values) for name, values in row.items()}
        for clock, row in taken.items()
    }
    return {
        "frames": len(expected[0]),
        **median,
        "ratio": {name: value / median["seconds"]["omnidrop"]
                  for name, value in median["seconds"].items()},
    }  # fmt: skip


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="keep the clips here and use them again")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for case in options.cases:
            seconds, choice = CASES[case]
            path, loop = folder / f"decoding-{seconds}.mp4", folder / "decoding-loop.mp4"
            once(loop, make_loop)
            once(path, partial(make_clip, loop=loop, seconds=seconds))
            results[case] = measure(path, choice, options.repeats)
    print(f"{'clip':>6} {'frames':>7}  {'way':<11} {'seconds':>8} {'processor s':>12} {'ratio':>6}")
    for case, row in results.items():
        for name, value in row["seconds"].items():
            print(
                f"{case:>6} {row['frames']:>7}  {name:<11} {value:>8.3f} "
                f"{row['processor'][name]:>12.3f} {row['ratio'][name]:>6.2f}"
            )
    print(json.dumps({"cpus": os.cpu_count(), "torch_threads": torch.get_num_threads(), **results}))


if __name__ == "__main__":
    main()
