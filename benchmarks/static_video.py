"""Vision encoder time on slide shows, as a share of that on a moving clip of the same length.

Two minutes at 720p. A grid (pair of frames) whose pixels equal those of an earlier grid is not
encoded again. So it matters how exactly a file repeats its pixels:

moving          every frame differs
slides, held    one frame a slide, shown for 20 s, as recorders of variable frame rate write it
slides, exact   30 frames a second, encoded losslessly
slides, x264    30 frames a second by x264's defaults, which re-encode a still image at every key
                frame and refine it over the next second, so that fewer grids repeat exactly

Embeddings with and without reuse must be equal on each clip; this is checked first. The last row
reads the x264 slides with `still`, which changes results. `apart` is the mean over tokens of one
minus the cosine between the embeddings with and without it.

    python benchmarks/static_video.py [--work DIR] [--model samples/demo-model] [--seconds 120]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import av
import numpy as np
import torch

import omnidrop
from omnidrop.engine import frame_stream as reading
from omnidrop.engine.encode import Encoded, encode_clip
from omnidrop.engine.timing import Meter

ROOT = Path(__file__).resolve().parent.parent
FPS, WIDTH, HEIGHT, SLIDE = 30, 1280, 720, 20
STILL = 16  # grey levels
CLIPS = {
    "moving": {"preset": "ultrafast"},
    "slides, held": {"bf": "0"},
    "slides, exact": {"preset": "ultrafast", "qp": "0"},
    "slides, x264": {},
}


def slide(number: int) -> np.ndarray:
    """Return a slide with a heading, lines of text and an image: uint8 (H, W, 3)."""
    rng = np.random.default_rng(number)
    page = np.full((HEIGHT, WIDTH, 3), 245, dtype=np.uint8)
    page[40:110, 60 : WIDTH - 60] = rng.integers(30, 200, 3)
    for top in range(160, HEIGHT - 60, 60):
        for left in range(80, 80 + int(rng.integers(400, 700)), 14):
            if rng.random() < 0.85:
                height, width = rng.integers(12, 28), rng.integers(5, 11)
                page[top : top + height, left : left + width] = rng.integers(0, 90)
    rows, columns = np.linspace(0, 6, 300)[:, None], np.linspace(0, 5, 360)[None, :]
    page[300:600, 860:1220] = (120 + 100 * np.sin(rows + columns + number))[..., None]
    return page


def frames(kind: str, seconds: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield the frames of a clip, each with its number at `FPS`."""
    if kind == "moving":
        wide = np.concatenate([slide(0), slide(1), slide(0)], axis=1)
        for number in range(seconds * FPS):
            left = number * 7 % (2 * WIDTH)
            view = np.ascontiguousarray(wide[:, left : left + WIDTH])
            view[number % 600 :][:60, number * 3 % 1200 :][:, :60] = number % 256
            yield number, av.VideoFrame.from_ndarray(view, format="rgb24")
        return
    for page in range(-(-seconds // SLIDE)):
        image = av.VideoFrame.from_ndarray(slide(page), format="rgb24")
        still = image.reformat(format="yuv420p")
        first, last = page * SLIDE * FPS, min(seconds, (page + 1) * SLIDE) * FPS
        step = last - first if kind == "slides, held" else 1
        for number in range(first, last, step):
            yield number, av.VideoFrame.from_ndarray(still.to_ndarray(), format="yuv420p")
    if kind == "slides, held":  # two closing frames give the last slide its duration
        yield seconds * FPS - 2, av.VideoFrame.from_ndarray(still.to_ndarray(), format="yuv420p")
        yield seconds * FPS - 1, still


def make_clip(path: Path, kind: str, seconds: int) -> None:
    """Write a clip of one kind."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=FPS, options=CLIPS[kind])
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, frame in frames(kind, seconds):
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))


def encode(
    model: omnidrop.Model, path: Path, reuse: bool = True, still: int = 0
) -> tuple[Encoded, float]:
    """Encode a clip; return its embeddings and the seconds in the vision encoder."""
    numbers = itertools.count()
    never = SimpleNamespace(blake2b=lambda *_, **__: SimpleNamespace(digest=numbers.__next__))
    meter = Meter(model.adapter.device)
    with (
        model.open(path, still=still) as session,
        mock.patch.object(reading, "hashlib", reading.hashlib if reuse else never),
    ):
        encoded = encode_clip(model.adapter, session.clip, meter)
    taken = {stage.name: stage.seconds for stage in meter.stages()}
    return encoded, taken.get("vision tower", 0.0)


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="keep the clips here for later runs")
    parser.add_argument("--model", type=Path, default=ROOT / "samples" / "demo-model")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--still", type=int, default=STILL)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    model = omnidrop.load(str(options.model), device="cpu", dtype="float32", offline=True)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.work or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {}
        for kind in CLIPS:
            name = kind.replace(", ", "-")
            paths[kind] = folder / f"static-{name}-{options.seconds}.mp4"
            if not paths[kind].exists():
                part = paths[kind].with_suffix(".part.mp4")
                make_clip(part, kind, options.seconds)
                part.rename(paths[kind])
        runs = {kind: (path, 0) for kind, path in paths.items()}
        runs[f"x264, still {options.still}"] = paths["slides, x264"], options.still
        for kind, (path, still) in runs.items():
            (plain, _), (reused, _) = (
                encode(model, path, reuse=False),
                encode(model, path, still=still),
            )
            if not still and not torch.equal(plain.video, reused.video):
                raise SystemExit(f"{kind}: the embeddings differ")
            alike = torch.nn.functional.cosine_similarity(plain.video, reused.video)
            grids = reused.media.grid[0]
            rows[kind] = {
                "grids": grids,
                "encoded": grids - reused.repeated_grids,
                "apart": float(1 - alike.mean()) if still else 0.0,
            }
        seconds: dict[str, list[float]] = {kind: [] for kind in runs}
        for _ in range(options.repeats):
            for kind, (path, still) in runs.items():
                seconds[kind].append(encode(model, path, still=still)[1])
    for kind, values in seconds.items():
        rows[kind]["seconds"] = statistics.median(values)
        rows[kind]["ratio"] = rows[kind]["seconds"] / statistics.median(seconds["moving"])
    print(f"{'clip':<14} {'grids':>6} {'encoded':>8} {'tower s':>8} {'of moving':>10} {'apart':>8}")
    for kind, row in rows.items():
        print(
            f"{kind:<14} {row['grids']:>6} {row['encoded']:>8} "
            f"{row['seconds']:>8.3f} {row['ratio']:>10.3f} {row['apart']:>8.1e}"
        )
    print(json.dumps({"seconds": options.seconds, **rows}))


if __name__ == "__main__":
    main()
