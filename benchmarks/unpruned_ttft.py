"""Time to the first token, nothing pruned: OmniDrop against transformers' own pipeline.

Same clip, same checkpoint, same decoded frames and sound, sdpa, one process, runs in turn. Theirs:
`WhisperFeatureExtractor` (which pads every sound to 300 s), the same patches as ours (their video
processor needs torchvision), and `generate` for one token. Ours: the session, from the open file.
Decoding is done by both. A whole greedy answer is checked to be equal, token by token, before
anything is timed. Processor seconds are given beside those on the wall, for a busy machine.

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

import omnidrop
from omnidrop.clip.features import patches
from omnidrop.engine.decode import GenerateOptions
from omnidrop.prompt import Media, build_prompt

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "What instrument plays first?"


def make_clip(path: Path, seconds: int) -> None:
    """Write a 640x360 clip of a panning picture and a rising tone."""
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
    """First tokens of an unpruned answer."""
    greedy = GenerateOptions(max_new_tokens=length)
    with model.open(clip) as session:
        answer = session.ask(QUESTION, method=omnidrop.Method(), options=greedy)
    return list(answer.token_ids)


def theirs(
    model: omnidrop.Model,
    reference: Qwen2_5OmniThinkerForConditionalGeneration,
    extractor: WhisperFeatureExtractor,
    clip: Path,
    length: int = 1,
) -> list[int]:
    """First tokens of `generate` on the same frames and sound."""
    adapter = model.adapter
    with omnidrop.open_clip(clip, video_spec=adapter.video_spec) as opened:
        data = opened.read()
    given: dict[str, object] = {}
    grid, tokens, step = None, 0, None
    if data.audio is not None:
        sound = extractor(
            data.audio.numpy(),
            sampling_rate=16000,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        frames = int(sound["attention_mask"].sum())
        tokens = ((frames - 1) // 2 + 1 - 2) // 2 + 1
        given["input_features"] = sound["input_features"]
        given["feature_attention_mask"] = sound["attention_mask"]
    if len(data.frames):
        rows, grid = patches(data.frames, adapter.video_spec)
        step = 2 / data.fps
        given["pixel_values_videos"] = rows
        given["video_grid_thw"] = torch.tensor([grid])
        given["video_second_per_grid"] = torch.tensor([step])
        given["use_audio_in_video"] = tokens > 0
    media = Media(grid, step, tokens)
    ids = build_prompt(adapter.text, adapter.layout, QUESTION, media).ids[None]
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
    """Check that both answer alike, then time the first token of each in turn."""
    answers = {name: run(length=8) for name, run in runs.items()}
    shortest = min(len(answer) for answer in answers.values())  # an end token is not counted alike
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
    ratio = {clock: row["transformers"] / row["omnidrop"] for clock, row in median.items()}
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
            runs = {
                "omnidrop": partial(own, model, clip),
                "transformers": partial(theirs, model, reference, extractor, clip),
            }
            rows[clip.name] = measure(runs, options.repeats)
    print(f"{'clip':<16} {'':<13} {'seconds':>8} {'processor s':>12}")
    for clip, row in rows.items():
        for name in ("omnidrop", "transformers"):
            print(
                f"{clip:<16} {name:<13} {row['seconds'][name]:>8.3f} "
                f"{row['processor'][name]:>12.3f}"
            )
        print(
            f"{'':<16} {'ratio':<13} {row['ratio']['seconds']:>8.2f} "
            f"{row['ratio']['processor']:>12.2f}"
        )
    print(json.dumps({"threads": torch.get_num_threads(), "clips": rows}))


if __name__ == "__main__":
    main()
