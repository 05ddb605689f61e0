"""The demo model's answers on a GPU against those on a CPU, from precomputed features.

`prepare` decodes AVSynth test clips and stores their resized frames and log-mel in one safetensors
file (about 1 MB a clip), with the questions in its header; it needs PyAV. `demo` needs no media
library: it asks every question on the CPU in float32 and in every other configuration that this
machine supports (CUDA in float32 and bfloat16, with sdpa, eager and flash attention, and 4-bit with
bitsandbytes), unpruned and with OmniDrop at 30 %.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import omnidrop
from benchmarks.gpu_parts.bench import Bench
from omnidrop.clip.patches import patches
from omnidrop.clip.specs import VideoSpec
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.encode import Features
from omnidrop.errors import OmniDropError

ROOT = Path(__file__).resolve().parents[2]
METHODS = {"none": omnidrop.Method(), "omnidrop 30%": omnidrop.OmniDrop(budget=0.3)}
SHORT = GenerateOptions(max_new_tokens=6)

Question = dict[str, Any]


def prepare(path: Path, clips: Path, count: int) -> None:
    """Write the features of the first test clips, and their questions."""
    from omnidrop.testing.whole_clip import read_whole  # needs the media libraries

    lines = (ROOT / "samples" / "avsynth" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    asked: dict[str, list[Question]] = defaultdict(list)
    for line in map(json.loads, lines):
        asked[line["video"]].append({k: line[k] for k in ("question", "answer", "sparse")})
    names = list(asked)[:count]
    model = omnidrop.load("demo", device="cpu")
    tensors: dict[str, torch.Tensor] = {}
    fps: dict[str, float] = {}
    for name in names:
        with model.open(clips / name) as session:
            data, mel = read_whole(session.clip), session.clip.log_mel()
        if len(data.frames):
            tensors[f"{name}/frames"], fps[name] = data.frames.contiguous(), data.fps
        if mel is not None:
            tensors[f"{name}/mel"] = mel.contiguous()
    header = {"fps": json.dumps(fps), "asked": json.dumps({n: asked[n] for n in names})}
    save_file(tensors, path, metadata=header)
    print(f"{len(names)} clips, {path.stat().st_size / 1e6:.0f} MB: {path}")


def read(path: Path, spec: VideoSpec) -> tuple[dict[str, Features], dict[str, list[Question]]]:
    """Features and questions by clip."""
    with safe_open(path, "pt") as box:
        header, keys = box.metadata(), set(box.keys())
        fps, asked = json.loads(header["fps"]), json.loads(header["asked"])
        found = {}
        for name in asked:
            rows = grid = step = mel = None
            if name in fps:
                rows, grid = patches(box.get_tensor(f"{name}/frames"), spec)
                step = spec.temporal_patch_size / fps[name]
            if f"{name}/mel" in keys:
                mel = box.get_tensor(f"{name}/mel")
            found[name] = Features(patches=rows, grid=grid, second_per_grid=step, mel=mel)
    return found, asked


def configurations() -> dict[str, dict[str, str]]:
    """Return the settings of `omnidrop.load` to compare; the first is the reference."""
    found = {"cpu float32": {"device": "cpu", "dtype": "float32"}}
    small = importlib.util.find_spec("bitsandbytes") is not None
    if small:
        found["cpu 4bit"] = {"device": "cpu", "quantize": "4bit"}
    if torch.cuda.is_available():
        for dtype in ("float32", "bfloat16"):
            for attention in ("sdpa", "eager", "flash"):
                if (dtype, attention) != ("float32", "flash"):
                    settings = {"device": "cuda", "dtype": dtype, "attention": attention}
                    found[f"cuda {dtype} {attention}"] = settings
        if small:
            found["cuda 4bit"] = {"device": "cuda", "dtype": "bfloat16", "quantize": "4bit"}
    return found


def answers(
    model: omnidrop.Model, features: dict[str, Features], asked: dict[str, list[Question]]
) -> dict[str, list[str]]:
    """Return the answer to every question under each method."""
    said: dict[str, list[str]] = {name: [] for name in METHODS}
    for clip, questions in asked.items():
        with model.features(features[clip]) as session:
            for question in questions:
                for name, method in METHODS.items():
                    text = session.ask(question["question"], method=method, options=SHORT).text
                    said[name].append(text.strip().rstrip(".").lower())
    return said


def demo(bench: Bench, path: Path) -> None:
    """Add one row per configuration and method.

    Parameters
    ----------
    bench : Bench
    path : Path
        A file written by `prepare`.
    """
    first: dict[str, list[str]] = {}
    last = 0.0
    for way, settings in configurations().items():
        if not bench.allows("demo", way, last):
            continue
        begun = time.perf_counter()
        try:
            model = omnidrop.load("demo", offline=True, **settings)
        except OmniDropError as error:  # not on this machine
            bench.leave_out("demo", way, str(error))
            continue
        features, asked = read(path, model.adapter.video_spec)
        questions = [q for part in asked.values() for q in part]
        start = time.perf_counter()
        said = answers(model, features, asked)
        seconds = (time.perf_counter() - start) / len(questions) / len(METHODS)
        first = first or said
        for name, texts in said.items():
            right = [t == q["answer"].lower() for t, q in zip(texts, questions, strict=True)]
            sparse = [r for r, q in zip(right, questions, strict=True) if q["sparse"]]
            same = [a == b for a, b in zip(texts, first[name], strict=True)]
            bench.row(
                "demo", f"{way}, {name}", questions=len(right),
                right=sum(right) / len(right), sparse=sum(sparse) / max(1, len(sparse)),
                as_cpu=sum(same) / len(same), seconds=seconds,
            )  # fmt: skip
        last = time.perf_counter() - begun
