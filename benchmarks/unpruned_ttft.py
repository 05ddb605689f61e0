"""Time to the first token, nothing pruned: OmniDrop against transformers' own pipeline.

Same clip, same checkpoint, same decoded frames and sound, sdpa, one process, runs in turn. Theirs:
`WhisperFeatureExtractor` (which pads every sound to 300 s), the same patches as ours (their video
processor needs torchvision), and `generate` for one token. Ours: the session, from the open file.
Decoding is done by both. The first token is checked to be equal before anything is timed.

    python benchmarks/unpruned_ttft.py [--clip samples/duet.mp4] [--model samples/demo-model]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration, WhisperFeatureExtractor

import omnidrop
from omnidrop.clip.features import patches
from omnidrop.engine.decode import GenerateOptions
from omnidrop.prompt import Media, build_prompt

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "What instrument plays first?"


def own(model: omnidrop.Model, clip: Path) -> int:
    """First token of an unpruned answer."""
    one = GenerateOptions(max_new_tokens=1)
    with model.open(clip) as session:
        answer = session.ask(QUESTION, method=omnidrop.Method(), options=one)
    return answer.token_ids[0]


def theirs(
    model: omnidrop.Model,
    reference: Qwen2_5OmniThinkerForConditionalGeneration,
    extractor: WhisperFeatureExtractor,
    clip: Path,
) -> int:
    """First token of `generate` on the same frames and sound."""
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
            max_new_tokens=1,
            do_sample=False,
            **given,
        )
    return int(out[0, -1])


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, default=ROOT / "samples" / "duet.mp4")
    parser.add_argument("--model", type=Path, default=ROOT / "samples" / "demo-model")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    model = omnidrop.load(str(options.model), device="cpu", dtype="float32", offline=True)
    reference = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        options.model, dtype=torch.float32
    )
    extractor = WhisperFeatureExtractor(feature_size=128, chunk_length=300)
    runs = {
        "omnidrop": lambda: own(model, options.clip),
        "transformers": lambda: theirs(model, reference, extractor, options.clip),
    }
    first = {name: run() for name, run in runs.items()}
    if len(set(first.values())) != 1:
        raise SystemExit(f"the first tokens differ: {first}")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{'':14} {'median s':>9} {'fastest':>8} {'slowest':>8}")
    for name, values in seconds.items():
        print(f"{name:14} {median[name]:>9.3f} {min(values):>8.3f} {max(values):>8.3f}")
    ratio = median["transformers"] / median["omnidrop"]
    print(f"transformers takes {ratio:.2f} times as long")
    print(json.dumps({"median": median, "ratio": ratio, "clip": options.clip.name}))


if __name__ == "__main__":
    main()
