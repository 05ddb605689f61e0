"""Startup costs of a fresh process by part: imports, CUDA, reading weights, first kernels."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts.bench import Bench
from benchmarks.gpu_parts.shapes import Shape

CHILD = Path(__file__).with_name("child.py")

#: Time limit of one process, in seconds.
PATIENCE = 120.0

#: Parts that every process of a shell loop repeats before its question.
STARTING = ("start of Python", "import torch", "CUDA start", "import transformers")


def cold_start(bench: Bench, name: str, shape: Shape, folder: Path, tokens: int) -> None:
    """Measure a fresh process: ours up to the first token, transformers' loading only.

    Parameters
    ----------
    bench : Bench
    name : str
    shape : Shape
    folder : Path
        Checkpoint of that shape.
    tokens : int
        AV tokens, about.
    """
    runs: dict[str, dict[str, Any]] = {
        "omnidrop": {},
        "omnidrop, transformers reads the weights": {"plain": True},
        "transformers, loading alone": {"who": "transformers"},
        "omnidrop, files from the disk": {"forget": True},
    }
    last = 0.0
    for row, settings in runs.items():
        if not bench.allows("cold-start", f"{row}, {name}", last):
            continue
        if settings.pop("forget", False):
            forget(folder)
        start = time.perf_counter()
        process(bench, "cold-start", row, name, shape, folder, tokens, **settings)
        last = time.perf_counter() - start


def quantised(bench: Bench, name: str, shape: Shape, folder: Path, tokens: int) -> None:
    """Load and answer in 4 bits, over loading in bfloat16; parameters as `cold_start`."""
    if importlib.util.find_spec("bitsandbytes") is None:
        bench.leave_out("4bit", name, "bitsandbytes is not installed")
        return
    loads = [
        row["load"]
        for row in bench.rows
        if (row["part"], row["name"]) == ("cold-start", "omnidrop") and "load" in row
    ]
    last = 0.0
    runs: dict[str, dict[str, Any]] = {} if loads else {"bf16": {}}
    runs["4bit"] = {"quantize": "4bit"}
    runs["4bit, transformers reads the weights"] = {"quantize": "4bit", "plain": True}
    runs["4bit, transformers, loading alone"] = {"quantize": "4bit", "who": "transformers"}
    for row, settings in runs.items():
        if not bench.allows("4bit", f"{row}, {name}", last):
            continue
        start = time.perf_counter()
        found = process(bench, "4bit", row, name, shape, folder, tokens, **settings)
        last = time.perf_counter() - start
        if row == "bf16" and "load" in found:
            loads = [found["load"]]
        elif loads and "load" in found:
            found["load_over_bf16"] = found["load"] / loads[0]
            print(f"  {row}: loads in {found['load_over_bf16']:.2f} times bf16's time", flush=True)
    bench.save()


def process(
    bench: Bench,
    part: str,
    row: str,
    name: str,
    shape: Shape,
    folder: Path,
    tokens: int,
    *,
    who: str = "omnidrop",
    quantize: str | None = None,
    plain: bool = False,
) -> dict[str, Any]:
    """Run one process and make a row of it; return the row.

    Parameters
    ----------
    bench : Bench
    part, row, name : str
        Part and name of the row, name of the shape.
    shape : Shape
    folder : Path
        Checkpoint of that shape.
    tokens : int
        AV tokens, about.
    who : {"omnidrop", "transformers"}
        With "transformers" the process loads and does not answer.
    quantize : {None, "4bit", "8bit"}
    plain : bool
        Let transformers read the weights for OmniDrop.
    """
    seconds = min(PATIENCE, max(1.0, bench.left()))
    grid = max(2, round(tokens / shape.tokens_per_second)), *shape.frame
    words = [sys.executable, str(CHILD), str(folder), "--who", who, "--device", str(bench.device)]
    words += ["--grid", *map(str, grid), "--seconds", f"{seconds:.0f}"]
    words += ["--quantize", quantize] if quantize else []
    words += ["--plain"] if plain else []
    done = subprocess.run(
        [*words, "--began", str(time.time())], capture_output=True, text=True, check=False
    )
    values: dict[str, Any] = {"shape": name, "tokens": tokens}
    asked: list[dict[str, Any]] = []
    for printed in done.stdout.splitlines():
        if not printed.startswith('{"mark"'):
            continue
        told = json.loads(printed)
        if "ttft" in told:
            asked.append(told)
            continue
        values[told["mark"]] = told["seconds"]
        values |= {key: told[key] for key in ("held_gb", "peak_gb") if told.get(key) is not None}
    starting = sum(values.get(mark, 0.0) for mark in STARTING)
    values["starting"] = starting + values.get("import omnidrop", 0.0)
    if asked:
        values["first_ttft"] = asked[0]["ttft"]
        values["to_first_token"] = values["starting"] + values["load"] + asked[0]["ttft"]
    if len(asked) > 1:
        warm = asked[-1]
        values["warm_ttft"] = warm["ttft"]
        values["first_over_warm"] = asked[0]["ttft"] / warm["ttft"]
        if warm["tokens_per_second"]:
            values["ms"] = 1000 / warm["tokens_per_second"]
    if done.returncode:
        stack = [text.strip() for text in done.stderr.splitlines() if text.strip()]
        stack = [text for text in stack if "frozen importlib" not in text]
        values["failed"] = f"not done after {seconds:.0f} s, or broken: exit {done.returncode}"
        values["stack"] = stack[:30] + stack[30:][-10:] if "Timeout" in done.stderr else stack[-12:]
        timed_out = "Timeout" in done.stderr
        bench.wrong |= not timed_out
        print("\n".join(f"    {text}" for text in values["stack"]), flush=True)
    return bench.row(part, row, **values)


def forget(folder: Path) -> None:
    """Ask the system to drop a checkpoint's files from the page cache."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
