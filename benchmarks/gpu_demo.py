"""The demo model's answers on a GPU against those on a CPU, from ready features.

    python samples/make_clips.py --out /tmp/avsynth
    python benchmarks/gpu_demo.py FILE --prepare --clips /tmp/avsynth [--count 40]
    python benchmarks/gpu_demo.py FILE [--out demo.json]

The first of the two decodes AVSynth test clips and keeps their resized frames and log-mel in one
safetensors file (about 1 MB a clip), the questions in its header; it needs PyAV. The second needs
no media library: it asks every question on the CPU in float32 and then in every other way that
this machine has (CUDA in float32 and bfloat16, with sdpa, eager and flash attention, and 4-bit
where bitsandbytes is), unpruned and with OmniDrop at 30 %. It prints the accuracy, how many answers
are the CPU's own, and seconds a question.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import omnidrop  # noqa: E402
from omnidrop.clip.patches import patches  # noqa: E402
from omnidrop.clip.specs import VideoSpec  # noqa: E402
from omnidrop.engine.decode import GenerateOptions  # noqa: E402
from omnidrop.engine.encode import Features  # noqa: E402
from omnidrop.errors import OmniDropError  # noqa: E402
from omnidrop.testing.whole_clip import read_whole  # noqa: E402

METHODS = {"none": omnidrop.Method(), "omnidrop 30%": omnidrop.OmniDrop(budget=0.3)}
SHORT = GenerateOptions(max_new_tokens=6)

Question = dict[str, Any]


def prepare(path: Path, clips: Path, count: int) -> None:
    """Write the features of the first test clips, and their questions."""
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


def ways() -> dict[str, dict[str, str]]:
    """Settings of `omnidrop.load` to compare; the first is the reference."""
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
    """What is said to every question under each method, and the seconds of it all."""
    said: dict[str, list[str]] = {name: [] for name in METHODS}
    for clip, questions in asked.items():
        with model.features(features[clip]) as session:
            for question in questions:
                for name, method in METHODS.items():
                    text = session.ask(question["question"], method=method, options=SHORT).text
                    said[name].append(text.strip().rstrip(".").lower())
    return said


def compare(path: Path) -> list[dict[str, Any]]:
    """One row per way and method, printed as they come."""
    rows: list[dict[str, Any]] = []
    first: dict[str, list[str]] = {}
    print(f"{'way':22} {'method':14} {'right %':>8} {'sparse %':>9} {'as CPU %':>9} {'s each':>7}")
    for way, settings in ways().items():
        try:
            model = omnidrop.load("demo", offline=True, **settings)
        except OmniDropError as error:  # not on this machine: the table says why
            print(f"{way:22} {error}")
            rows.append({"way": way, "failed": str(error)})
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
            row = {
                "way": way,
                "method": name,
                "questions": len(right),
                "right": sum(right) / len(right),
                "sparse": sum(sparse) / max(1, len(sparse)),
                "as_cpu": sum(same) / len(same),
                "seconds": seconds,
            }
            rows.append(row)
            print(
                f"{way:22} {name:14} {100 * row['right']:>8.1f} {100 * row['sparse']:>9.1f} "
                f"{100 * row['as_cpu']:>9.1f} {seconds:>7.3f}",
                flush=True,
            )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--prepare", action="store_true", help="write FILE from --clips")
    parser.add_argument("--clips", type=Path, help="folder that make_clips.py wrote")
    parser.add_argument("--count", type=int, default=40, help="clips to prepare")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    if options.prepare:
        if options.clips is None:
            parser.error("--prepare needs --clips")
        prepare(options.file, options.clips, options.count)
        return
    result = {
        "schema": "omnidrop.gpu_demo/1",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "rows": compare(options.file),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
