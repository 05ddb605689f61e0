"""Compares OmniDrop on a GPU with transformers and the hardware: speed, memory, accuracy.

    python benchmarks/gpu.py --out gpu.json                           every part, 7B shape
    python benchmarks/gpu.py --part ceilings ttft --tokens 20000 --limit 60
    python benchmarks/gpu.py --shape tiny --device cpu                a quick test of the script
    python benchmarks/gpu.py --table gpu.json                         its tables, as Markdown
    python benchmarks/gpu.py --write-checkpoint DIR --shape 3b        random weights, hub's layout
    python benchmarks/gpu.py --prepare-demo FILE --clips DIR          for the part `demo`

Nothing is downloaded and no media library is needed: weights (bfloat16) and features are random.
Random weights change which tokens are kept, but not the cost. Parts, in this order:

ceilings         bf16 matrix product, copy on the device and from the host
ttft             first token and memory by length and method; transformers' `generate` in turns
decoding         milliseconds a token; `generate` by default, and compiled with a static cache
second-question  a second question about the same clip, over the first
accuracy         tokens against transformers' in float32; logits in bf16 and fp16; choices against
                 the CPU's
cold-start       a fresh process on a checkpoint, from its start to the first token, part by part
4bit             the same in 4 bits; needs bitsandbytes
demo             the demo model's answers, needs a file that --prepare-demo wrote

Every measurement is printed at once, a row of medians after its last round, and the JSON is written
after every row. With --limit, a cell is started only if as much time is left as it took before;
what is left out is printed, and listed in the JSON. Exit code 1 if something failed for another
reason than memory or time, 4 without a GPU.
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.gpu_parts.accuracy import accuracy, choices  # noqa: E402
from benchmarks.gpu_parts.bench import Bench, TooLongError, free, interrupted  # noqa: E402
from benchmarks.gpu_parts.demo import demo, prepare  # noqa: E402
from benchmarks.gpu_parts.fresh import cold_start, quantised  # noqa: E402
from benchmarks.gpu_parts.shapes import SHAPES, write_checkpoint  # noqa: E402
from benchmarks.gpu_parts.speed import (  # noqa: E402
    Subject,
    ceilings,
    decoding,
    first_token,
    second_question,
)
from benchmarks.gpu_parts.tables import markdown  # noqa: E402

PARTS = (
    "ceilings", "ttft", "decoding", "second-question", "accuracy", "cold-start", "4bit", "demo",
)  # fmt: skip
WARM = ("ttft", "decoding", "second-question")
FRESH = ("cold-start", "4bit")
NO_GPU = 4


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--shape", nargs="+", choices=sorted(SHAPES), default=["7b"])
    parser.add_argument("--tokens", nargs="+", type=int, help="AV tokens for ttft")
    parser.add_argument(
        "--decode-tokens", type=int, help="AV tokens for decoding and the second question"
    )
    parser.add_argument("--accuracy-shape", choices=sorted(SHAPES), help="default: 3b, or tiny")
    parser.add_argument("--accuracy-tokens", type=int, default=2000)
    parser.add_argument("--new", type=int, default=32, help="tokens to decode")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, help="seconds for everything")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--checkpoint", type=Path, help="for the fresh processes; default: made")
    parser.add_argument("--checkpoint-shape", choices=sorted(SHAPES), help="default: 3b, or tiny")
    parser.add_argument("--demo-file", type=Path)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print a run's tables and end")
    parser.add_argument("--write-checkpoint", type=Path, metavar="DIR", help="write one and end")
    parser.add_argument("--prepare-demo", type=Path, metavar="FILE", help="write it and end")
    parser.add_argument("--clips", type=Path, help="folder that samples/make_clips.py wrote")
    parser.add_argument("--count", type=int, default=6, help="clips to prepare")
    options = parser.parse_args(given)
    if options.repeats < 1 or options.new < 1:
        parser.error("--repeats and --new must be at least 1")
    if options.prepare_demo and options.clips is None:
        parser.error("--prepare-demo needs --clips")
    return options


def main(given: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    began = BEGAN if given is None else time.perf_counter()
    options = arguments(given)
    if options.table:
        print(markdown(json.loads(options.table.read_text(encoding="utf-8"))), end="")
        return 0
    if options.prepare_demo:
        prepare(options.prepare_demo, options.clips, options.count)
        return 0
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            "There is no CUDA GPU. To test the script: --shape tiny --device cpu", file=sys.stderr
        )
        return NO_GPU
    if options.write_checkpoint:
        for name in options.shape:
            size = write_checkpoint(options.write_checkpoint, SHAPES[name], device)
            print(f"{name}: {size / 1e9:.1f} GB of weights in {options.write_checkpoint}")
        return 0
    bench = Bench(
        device,
        repeats=options.repeats,
        limit=options.limit,
        began=began,
        out=options.out,
        about={"arguments": {k: str(v) for k, v in vars(options).items() if v is not None}},
    )
    print(", ".join(f"{k} {v}" for k, v in bench.about.items() if k != "arguments"), flush=True)
    measure(bench, options)
    bench.save()
    left = len(bench.left_out)
    print(
        f"{time.perf_counter() - began:.0f} s; {len(bench.rows)} rows, {left} left out", flush=True
    )
    return int(bench.wrong)


def measure(bench: Bench, options: argparse.Namespace) -> None:
    """Run the parts; one that fails becomes a row, and the others continue."""
    limits: dict[str, float] = {}
    small = options.shape == ["tiny"]

    def attempt(
        part: str, name: str, run: Callable[..., Any], *given: object, bounded: bool = False
    ) -> Any:
        try:
            with interrupted(bench.left() if bounded else float("inf")):
                return run(*given)
        except (Exception, TooLongError) as error:
            bench.fail(part, name, error)
            return None

    if "ceilings" in options.part:
        limits = attempt("ceilings", "all", ceilings, bench, bounded=True) or {}
    free(bench.device)
    for name in options.shape:
        if not set(options.part) & set(WARM):
            break
        shape = SHAPES[name]
        if not bench.allows("shape", name, 10.0 if bench.device.type == "cuda" else 0.0):
            continue
        subject = attempt("shape", name, Subject.make, name, shape, bench.device)
        if subject is None:
            continue
        middle = options.decode_tokens or shape.tokens[len(shape.tokens) // 2]
        if "ttft" in options.part:
            for tokens in options.tokens or shape.tokens:
                rate = limits.get("matmul")
                attempt("ttft", f"{name}, {tokens}", first_token, bench, subject, tokens, rate)
        if "decoding" in options.part:
            copy = limits.get("copy")
            attempt("decoding", name, decoding, bench, subject, middle, options.new, copy)
        if "second-question" in options.part:
            attempt("second-question", name, second_question, bench, subject, middle)
        del subject
        free(bench.device)
    if "accuracy" in options.part:
        name = options.accuracy_shape or ("tiny" if small else "3b")
        tokens = min(options.accuracy_tokens, 400) if name == "tiny" else options.accuracy_tokens
        attempt("accuracy", "choices", choices, bench, SHAPES["tiny"], 400, bounded=True)
        attempt("accuracy", name, accuracy, bench, name, SHAPES[name], tokens, bounded=True)
        free(bench.device)
    if set(options.part) & set(FRESH):
        name = options.checkpoint_shape or ("tiny" if small else "3b")
        with tempfile.TemporaryDirectory() as scratch:
            attempt("cold-start", name, fresh, bench, options, name, Path(scratch))
    if "demo" in options.part:
        if options.demo_file is None or not options.demo_file.exists():
            bench.leave_out("demo", "all", "no --demo-file; --prepare-demo writes one")
        else:
            attempt("demo", "all", demo, bench, options.demo_file, bounded=True)


def fresh(bench: Bench, options: argparse.Namespace, name: str, scratch: Path) -> None:
    """Run the parts that start processes, with the given checkpoint or a temporary one."""
    shape, folder = SHAPES[name], options.checkpoint
    if folder is None:
        if not bench.allows("cold-start", "checkpoint", 30.0 if name != "tiny" else 0.0):
            return
        folder = scratch
        size = write_checkpoint(folder, shape, bench.device)
        free(bench.device)
        print(f"  a checkpoint of {size / 1e9:.2f} GB", flush=True)
    tokens = min(shape.tokens)
    if "cold-start" in options.part:
        cold_start(bench, name, shape, folder, tokens)
    if "4bit" in options.part:
        quantised(bench, name, shape, folder, tokens)


if __name__ == "__main__":
    raise SystemExit(main())
