"""TTFT without pruning: OmniDrop against transformers' own pipeline.

Both sides use the same clip, checkpoint, decoded frames and audio, with sdpa attention, in one
process and in turns. The rows:

omnidrop         a session, from opening the file
transformers     `WhisperFeatureExtractor` (which pads all audio to 300 s), OmniDrop's reader and
                 patches (transformers' video processor needs torchvision), and `generate` for one
                 token. The target of 1.5 x is judged by this row
with its reader  the same, but frames are read by `transformers.video_utils.load_video` with PyAV,
                 by the same frame numbers. Audio is still read by OmniDrop, before the frames,
                 because transformers needs torchcodec to read it from a video

Before anything is timed, a whole greedy answer must be the same token by token. CPU seconds are
printed beside wall-clock seconds, because a busy machine changes them less.

    python benchmarks/unpruned_ttft.py [--clips samples/duet.mp4 …] [--model samples/demo-model]

Without --clips: samples/duet.mp4, and clips of 10 s and 60 s that are made for it.
"""

from __future__ import annotations

import argparse
import json
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
from transformers import Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor
from transformers.video_utils import load_video

import omnidrop
from omnidrop.clip.clip import Clip
from omnidrop.clip.patches import patches, resize_frames
from omnidrop.engine.decode import GenerateOptions
from omnidrop.prompt import build_prompt
from omnidrop.testing.whole_clip import read_whole
from omnidrop.tokens import Media

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "What instrument plays first?"


def make_clip(path: Path, seconds: int) -> None:
    """Write a 640x360 clip of a panning image and a rising tone."""
    width, height, fps, rate = 640, 360, 30, 48_000
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (height // 20, 2 * width // 20, 3), dtype=np.uint8)
    wide = blocks.repeat(20, axis=0).repeat(20, axis=1)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=fps, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = out.add_stream("aac", rate=rate, layout="mono")
        for second in range(seconds):
            for number in range(second * fps, (second + 1) * fps):
                left = number * 2 % width
                view = np.ascontiguousarray(wide[:, left : left + width])
                frame = av.VideoFrame.from_ndarray(view, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                out.mux(video.encode(frame))
            tone = np.sin(2 * np.pi * (300 + 10 * second) * np.arange(rate) / rate)
            sound = av.AudioFrame.from_ndarray((0.3 * tone[None]).astype("f4"), "fltp", "mono")
            sound.sample_rate, sound.pts, sound.time_base = rate, second * rate, Fraction(1, rate)
            out.mux(audio.encode(sound))
        for stream in (video, audio):
            out.mux(stream.encode(None))


def own(model: omnidrop.Model, clip: Path, length: int = 1) -> list[int]:
    """Return the first tokens of OmniDrop's unpruned answer."""
    greedy = GenerateOptions(max_new_tokens=length)
    with model.open(clip) as session:
        answer = session.ask(QUESTION, method=omnidrop.Method(), options=greedy, anyway=True)
    return list(answer.token_ids)


Read = tuple[torch.Tensor, torch.Tensor | None]


def read_by_us(clip: Clip) -> Read:
    """Read frames and audio by OmniDrop."""
    data = read_whole(clip)
    return data.frames, data.audio


def read_by_them(clip: Clip) -> Read:
    """Read frames by transformers, resized as its processor does, and audio by OmniDrop."""
    sound = list(clip.audio_blocks())
    audio = torch.from_numpy(np.concatenate(sound)) if sound else None
    if clip.plan is None:
        return torch.empty(0), audio
    times = clip.plan.times
    frames, _ = load_video(
        str(clip.path),
        backend="pyav",
        sample_indices_fn=lambda metadata, **_: np.rint(times * metadata.fps).astype(int),
    )
    return resize_frames(torch.from_numpy(frames).permute(0, 3, 1, 2), clip.plan.size), audio


def theirs(
    model: omnidrop.Model,
    reference: Qwen2_5OmniThinkerForConditionalGeneration,
    extractor: WhisperFeatureExtractor,
    read: Callable[[Clip], Read],
    clip: Path,
    length: int = 1,
) -> list[int]:
    """Return the first tokens of `generate` on the same frames and audio."""
    adapter = model.adapter
    with omnidrop.open_clip(clip, spec=adapter.media_spec) as opened:
        images, audio = read(opened)
        fps = opened.plan.fps if opened.plan is not None else 0.0
    given: dict[str, object] = {}
    grid, tokens, step = None, 0, None
    if audio is not None:
        sound = extractor(
            audio.numpy(),
            sampling_rate=16000,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        frames = int(sound["attention_mask"].sum())
        tokens = ((frames - 1) // 2 + 1 - 2) // 2 + 1
        given["input_features"] = sound["input_features"]
        given["feature_attention_mask"] = sound["attention_mask"]
    if len(images):
        rows, grid = patches(images, adapter.video_spec)
        step = 2 / fps
        given["pixel_values_videos"] = rows
        given["video_grid_thw"] = torch.tensor([grid])
        given["video_second_per_grid"] = torch.tensor([step])
        given["use_audio_in_video"] = tokens > 0
    media = Media(grid, step, tokens)
    ids = build_prompt(adapter.text, adapter.template, QUESTION, media).ids[None]
    with torch.inference_mode():
        out = reference.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=length,
            do_sample=False,
            **given,
        )
    return out[0, ids.shape[1] :].tolist()


def measure(runs: dict[str, Callable[..., list[int]]], repeats: int) -> dict[str, object]:
    """Check that all sides give the same tokens, then time the first token of each in turns."""
    answers = {name: run(length=8) for name, run in runs.items()}
    shortest = min(len(answer) for answer in answers.values())  # one may include the end token
    if len({tuple(answer[:shortest]) for answer in answers.values()}) != 1 or not shortest:
        raise SystemExit(f"the answers differ: {answers}")
    clocks = {"seconds": time.perf_counter, "processor": time.process_time}
    taken: dict[str, dict[str, list[float]]] = {
        clock: {name: [] for name in runs} for clock in clocks
    }
    for _ in range(repeats):
        for name, run in runs.items():
            before = {clock: now() for clock, now in clocks.items()}
            run()
            for clock, now in clocks.items():
                taken[clock][name].append(now() - before[clock])
    median = {
        clock: {name: statistics.median(values) for name, values in row.items()}
        for clock, row in taken.items()
    }
    ratio = {
        name: {clock: row[name] / row["omnidrop"] for clock, row in median.items()} for name in runs
    }
    return {**median, "tokens_equal": shortest, "ratio": ratio}


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, nargs="+")
    parser.add_argument("--model", type=Path, default=ROOT / "samples" / "demo-model")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    model = omnidrop.load(str(options.model), device="cpu", dtype="float32", offline=True)
    reference = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        options.model, dtype=torch.float32
    )
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300)
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        clips = options.clips or [ROOT / "samples" / "duet.mp4"]
        if options.clips is None:
            for seconds in (10, 60):
                clips.append(Path(scratch) / f"{seconds}-seconds.mp4")
                make_clip(clips[-1], seconds)
        for clip in clips:
            generate = partial(theirs, model, reference, extractor)
            runs = {
                "omnidrop": partial(own, model, clip),
                "transformers": partial(generate, read_by_us, clip),
                "with its reader": partial(generate, read_by_them, clip),
            }
            with omnidrop.open_clip(clip, spec=model.adapter.media_spec) as opened:
                equal = torch.equal(read_by_us(opened)[0], read_by_them(opened)[0])
            rows[clip.name] = {**measure(runs, options.repeats), "frames_equal": equal}
    print(f"{'clip':<16} {'':<16} {'seconds':>8} {'ratio':>6} {'processor s':>12} {'ratio':>6}")
    for clip, row in rows.items():
        for name, seconds in row["seconds"].items():
            ratio = row["ratio"][name]
            print(
                f"{clip:<16} {name:<16} {seconds:>8.3f} {ratio['seconds']:>6.2f} "
                f"{row['processor'][name]:>12.3f} {ratio['processor']:>6.2f}"
            )
    print(json.dumps({"threads": torch.get_num_threads(), "clips": rows}))


if __name__ == "__main__":
    main()
