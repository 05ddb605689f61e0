"""Loading, memory, prefill and decoding of the 3B shape on a CPU, by how its weights are held.

    python benchmarks/cpu_weights.py --avx2                   # the whole shape: 9.4 GB on the disk
    python benchmarks/cpu_weights.py --avx2 --layers 6 --towers 2   # less; decoding is scaled up
    python benchmarks/cpu_weights.py --tiny --rows 40         # tries the script itself

float32     converted when it is loaded (--dtype float32)
mapped      16 bits, mapped from the files, widened when used: the default without bfloat16
4bit, 8bit  torch's packed products (--4bit, --8bit)

The checkpoint has the published layout and random weights in bfloat16. Each run is a process of its
own; the runs of a round follow each other, and rounds are repeated, so compare within a round when
the machine has other work. Every run passes for one on a CPU without bfloat16 arithmetic; with
--avx2 the kernels are those of AVX2 as well. Prefill and decoding run the decoder on random states:
`--rows` rows at once, then single rows with the output layer. Memory is the process's own
(anonymous), and its largest size with the pages of the files, which the system can take back.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RUNS: dict[str, dict[str, str]] = {
    "float32": {"dtype": "float32"},
    "mapped": {},
    "4bit": {"quantize": "4bit"},
    "8bit": {"quantize": "8bit"},
}
#: Environment in which torch, MKL and oneDNN use no more than AVX2.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
#: Decoder layers of the published 3B.
LAYERS = 36


def write(folder: Path, tiny: bool, layers: int, towers: int) -> int:
    """Write the checkpoint; return its bytes."""
    import torch

    from benchmarks.gpu_parts.shapes import SHAPES, write_checkpoint

    shape = SHAPES["tiny" if tiny else "3b"]
    if not tiny:
        audio = shape.towers["audio"] | {"encoder_layers": towers}
        full = [at for at in (7, 15, 23, 31) if at < towers] or [towers - 1]
        vision = shape.towers["vision"] | {"depth": towers, "fullatt_block_indexes": full}
        text = shape.text | {"num_hidden_layers": layers, "max_window_layers": layers}
        shape = replace(shape, text=text, towers={"audio": audio, "vision": vision})
    return write_checkpoint(folder, shape, torch.device("cpu"))


def status(name: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def child(folder: str, run: str, rows: int, steps: int) -> None:
    """Load, prefill and decode; print the figures as JSON."""
    import torch

    from omnidrop.engine.cache import KVCache
    from omnidrop.models import loading
    from omnidrop.options import LoadOptions

    loading.quick_bfloat16 = lambda: False
    loading.load_adapter(LoadOptions(model="demo", device="cpu"))  # imports are not counted
    before = status("RssAnon")
    began = time.perf_counter()
    adapter = loading.load_adapter(
        LoadOptions(model=folder, device="cpu", offline=True, **RUNS[run])
    )
    loaded, own = time.perf_counter() - began, status("RssAnon") - before
    layers, width = adapter.info.text.layers, adapter.info.text.hidden
    cache = KVCache(layers, even=True)

    def through(hidden: Any, first: int) -> tuple[Any, float]:
        place = torch.arange(first, first + hidden.shape[1]).expand(3, -1)
        rotary = adapter.rotary(place)
        began = time.perf_counter()
        for index in range(layers):
            hidden = adapter.layer(index, hidden, rotary, cache)
        return hidden, time.perf_counter() - began

    with torch.inference_mode():
        hidden, prefill = through(torch.randn(1, rows, width), 0)
        tokens, heads = [], []
        for step in range(steps):
            last, seconds = through(hidden[:, -1:].clone(), rows + step)
            tokens.append(seconds)
            began = time.perf_counter()
            adapter.logits(last)
            heads.append(time.perf_counter() - began)
    found = {
        "load": loaded,
        "own": own / 1e9,
        "peak": status("VmHWM") / 1e9,
        "prefill": prefill,
        "layers": statistics.median(tokens[1:]),
        "head": statistics.median(heads[1:]),
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the checkpoint is, or will be kept")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--towers", type=int, default=32, help="layers of each encoder")
    parser.add_argument("--rows", type=int, default=1183)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--child", choices=RUNS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(str(options.folder), options.child, options.rows, options.steps)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "model"
        if not (folder / "config.json").is_file():
            need = 10e9 * (options.layers / LAYERS * 0.6 + 0.4) if not options.tiny else 1e6
            place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            if shutil.disk_usage(place).free < 1.2 * need:
                parser.error(f"{place} has no room for {need / 1e9:.0f} GB; give --folder")
            write(folder, options.tiny, options.layers, options.towers)
        measure(folder, options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Run every way of holding weights in turn, and print the figures."""
    from benchmarks.common import table

    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": str(ROOT)}
    environment |= AVX2 if options.avx2 else {}
    command = [sys.executable, __file__, "--folder", str(folder)]
    command += ["--rows", str(options.rows), "--steps", str(options.steps)]
    found: dict[str, list[dict[str, float]]] = {run: [] for run in options.runs}
    for _ in range(options.rounds):
        for run in options.runs:
            told = subprocess.run(
                [*command, "--child", run], env=environment, capture_output=True, text=True
            )
            if told.returncode:
                sys.exit(told.stderr)
            found[run].append(json.loads(told.stdout.splitlines()[-1]))
    scale = 1 if options.tiny else LAYERS / options.layers
    rows = []
    for run, each in found.items():
        best = {name: min(one[name] for one in each) for name in each[0]}
        token = best["layers"] * scale + best["head"]
        rows.append((run, *best.values(), token, 1 / token))
    head = ("weights", "load, s", "own, GB", "peak, GB", "prefill, s", "layers, s", "head, s")
    table((*head, "token, s", "tokens/s"), rows)
    print(f"Best of {options.rounds} rounds; {options.threads} threads; {options.rows} rows.")
    print(json.dumps({"rounds": found, "layers": options.layers, "avx2": options.avx2}))


if __name__ == "__main__":
    main()
