"""TTFT, prefill and memory on a GPU: 7B and 3B shapes, random weights, ready features.

    python benchmarks/gpu_tables.py --out gpu.json                  both shapes, 10 k to 40 k tokens
    python benchmarks/gpu_tables.py --shape 7b --tokens 20000
    python benchmarks/gpu_tables.py --shape tiny --device cpu       does it run at all

Nothing is downloaded and no media library is needed: the weights are drawn on the device in
bfloat16, the features too. Two tables for each shape:

towers    vision and audio tower over one clip: OmniDrop's batched windows against the forward that
          transformers ships, and how far their results are apart
prefill   a question about the clip, unpruned and pruned: towers, prompt, entry and layers up to the
          first token; peak memory of the towers and of the rest, weights included; achieved
          FLOP/s; the speed-up of entry and layers, measured and as the FLOPs predict it

All cells of a table take turns, after one round that does not count; the median is shown. A cell
that runs out of memory says so and the others go on. Random weights change what is kept, not what
it costs.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import is_flash_attn_2_available

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from gpu_shapes import SHAPES, Shape, build, make_features  # noqa: E402

import omnidrop  # noqa: E402
from omnidrop.engine.decode import GenerateOptions  # noqa: E402
from omnidrop.engine.encode import Features  # noqa: E402
from omnidrop.engine.session import Model  # noqa: E402
from omnidrop.engine.timing import device_peak, reset_device_peak, synchronize  # noqa: E402
from omnidrop.errors import MemoryShortError  # noqa: E402
from omnidrop.models.qwen2_5_omni.adapter import QwenOmniAdapter  # noqa: E402
from omnidrop.pruning.registry import method_names  # noqa: E402

QUESTION = "What instrument plays first, and what is shown on screen at the same time?"
BUDGETS = (0.3, 0.2, 0.1)
OUT_OF_MEMORY = "out of memory"


def methods(shape: Shape) -> dict[str, omnidrop.Method]:
    """What is compared: OmniDrop as its paper prints it where it does, or else solved."""
    presets = omnidrop.OmniDrop.presets()
    found: dict[str, omnidrop.Method] = {"none": omnidrop.Method()}
    for budget in BUDGETS:
        name = f"paper-{shape.paper.lower()}-{round(100 * budget)}"
        if name in presets:
            found[f"omnidrop {name}"] = presets[name]
        else:
            found[f"omnidrop {budget:.0%}"] = omnidrop.OmniDrop(budget=budget)
    if "seats" in method_names():
        for budget in BUDGETS:
            found[f"seats {budget:.0%}"] = omnidrop.get_method("seats", budget=budget)
    return found


Cell = Callable[[], dict[str, float]]


def in_turns(
    cells: dict[str, Cell], repeats: int, device: torch.device
) -> dict[str, dict[str, Any]]:
    """Run all cells in turn, `repeats` rounds after one that does not count.

    Returns
    -------
    dict
        Per cell the median of each reading, or `failed`: why there is none.
    """
    readings: dict[str, list[dict[str, float]]] = {name: [] for name in cells}
    failed: dict[str, str] = {}
    for turn in range(repeats + 1):
        for name, cell in cells.items():
            if name in failed:
                continue
            try:
                read = cell()
            except (torch.OutOfMemoryError, MemoryShortError):
                failed[name] = OUT_OF_MEMORY
            except Exception as error:  # told in the table, and by the exit code
                failed[name] = f"{type(error).__name__}: {error}"
            else:
                if turn:
                    readings[name].append(read)
                continue
            free(device)
    return {
        name: {"failed": failed[name]}
        if name in failed
        else {key: statistics.median(r[key] for r in read) for key in read[0]}
        for name, read in readings.items()
    }


def free(device: torch.device) -> None:
    """Give back what nobody holds."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_gb(device: torch.device) -> float:
    """Peak device memory since the last reset in GB; not a number where nothing counts it."""
    peak = device_peak(device)
    return float("nan") if peak is None else peak / 1e9


def measure_towers(
    adapter: QwenOmniAdapter, thinker: Any, features: Features, repeats: int
) -> dict[str, dict[str, Any]]:
    """Both towers' seconds, ours and the library's, on the same tensors."""
    device, dtype = adapter.device, adapter.dtype
    holder = thinker.model if hasattr(thinker.model, "language_model") else thinker
    patches, grid = features.patches.to(device, dtype), features.grid
    mel = features.mel.to(device, dtype)
    thw = torch.tensor([grid], device=device)
    frames = torch.tensor([mel.shape[1]], device=device)
    last: dict[str, torch.Tensor] = {}
    runs: dict[str, Callable[[], torch.Tensor]] = {
        "vision omnidrop": lambda: adapter.encode_video(patches, grid).planes[0],
        "vision transformers": lambda: holder.visual(patches, thw).pooler_output,
        "audio omnidrop": lambda: adapter.encode_audio(mel).planes[0],
        "audio transformers": lambda: holder.audio_tower(mel, frames).last_hidden_state,
    }

    def cell(name: str) -> dict[str, float]:
        last.pop(name, None)
        reset_device_peak(device)
        synchronize(device)
        start = time.perf_counter()
        with torch.inference_mode():
            out = runs[name]()
        synchronize(device)
        seconds = time.perf_counter() - start
        last[name] = out.float().cpu()
        return {"seconds": seconds, "peak_gb": peak_gb(device)}

    table = in_turns({name: lambda name=name: cell(name) for name in runs}, repeats, device)
    for tower in ("vision", "audio"):
        ours, theirs = (last.get(f"{tower} {who}") for who in ("omnidrop", "transformers"))
        if ours is not None and theirs is not None:
            apart = float((ours - theirs).norm() / theirs.norm())
            table[f"{tower} omnidrop"]["relative_difference"] = apart
            cells = [table[f"{tower} {who}"] for who in ("omnidrop", "transformers")]
            if all("seconds" in c for c in cells):
                table[f"{tower} omnidrop"]["speedup"] = cells[1]["seconds"] / cells[0]["seconds"]
    return table


def measure_prefill(
    model: Model, features: Features, compared: dict[str, omnidrop.Method], repeats: int
) -> dict[str, dict[str, Any]]:
    """Seconds and memory of one question under each method, towers included."""
    device = model.adapter.device
    shape = model.info.text
    one = GenerateOptions(max_new_tokens=1)

    def cell(method: omnidrop.Method) -> dict[str, float]:
        with model.features(features) as session:
            reset_device_peak(device)
            synchronize(device)
            start = time.perf_counter()
            session.encode(video_attention="video attention" in method.wants)
            synchronize(device)
            towers = time.perf_counter() - start
            towers_peak = peak_gb(device)
            trace = session.ask(QUESTION, method=method, options=one).trace
            stages = {stage.name: stage.seconds for stage in trace.stages}
            prefill = stages["entry"] + stages["prefill"]
            flops = shape.prefill_flops(trace.text_tokens, trace.kept_per_layer, as_run=True)
            return {
                "av_tokens": trace.av_tokens,
                "realised": trace.realised_budget,
                "ttft": towers + trace.ttft,
                "towers": towers,
                "prefill": prefill,
                "selection": stages.get("selection", 0.0),
                "towers_peak_gb": towers_peak,
                "peak_gb": peak_gb(device),
                "kv_gb": trace.memory.kv_cache / 1e9,
                "flops": flops,
                "flops_per_second": flops / prefill,
            }

    table = in_turns(
        {name: lambda method=method: cell(method) for name, method in compared.items()},
        repeats,
        device,
    )
    full = table["none"]
    for row in table.values():
        if "prefill" in row and "prefill" in full:
            row["speedup"] = full["prefill"] / row["prefill"]
            row["speedup_by_flops"] = full["flops"] / row["flops"]
            row["ttft_speedup"] = full["ttft"] / row["ttft"]
    return table


def print_towers(table: dict[str, dict[str, Any]]) -> None:
    """The first table."""
    print(f"  {'tower':22} {'s':>9} {'peak GB':>8} {'faster':>7} {'apart':>8}")
    for name, row in table.items():
        if "failed" in row:
            print(f"  {name:22} {row['failed']}")
            continue
        print(
            f"  {name:22} {row['seconds']:>9.4f} {row['peak_gb']:>8.2f} "
            f"{row.get('speedup', float('nan')):>7.2f} "
            f"{row.get('relative_difference', float('nan')):>8.1e}"
        )


def print_prefill(table: dict[str, dict[str, Any]]) -> None:
    """The second table."""
    print(
        f"  {'method':24} {'kept':>6} {'TTFT s':>8} {'towers':>8} {'prefill':>8} {'select':>8} "
        f"{'GB twr':>7} {'GB':>7} {'TFLOP/s':>8} {'faster':>7} {'by FLOP':>7} {'TTFT x':>7}"
    )
    for name, row in table.items():
        if "failed" in row:
            print(f"  {name:24} {row['failed']}")
            continue
        blank = float("nan")
        print(
            f"  {name:24} {row['realised']:>6.3f} {row['ttft']:>8.3f} {row['towers']:>8.3f} "
            f"{row['prefill']:>8.3f} {row['selection']:>8.3f} {row['towers_peak_gb']:>7.2f} "
            f"{row['peak_gb']:>7.2f} {row['flops_per_second'] / 1e12:>8.2f} "
            f"{row.get('speedup', blank):>7.2f} {row.get('speedup_by_flops', blank):>7.2f} "
            f"{row.get('ttft_speedup', blank):>7.2f}"
        )


def implementations(device: torch.device) -> list[str]:
    """Attention implementations to try here."""
    flash = device.type == "cuda" and is_flash_attn_2_available()
    return ["sdpa", *(["flash_attention_2"] if flash else [])]


def run(
    name: str, device: torch.device, tokens: list[int] | None, repeats: int
) -> Iterator[dict[str, Any]]:
    """Both tables of a shape at every token count, printed as they come."""
    shape = SHAPES[name]
    thinker, tokenizer = build(shape, device)
    for attention in implementations(device):
        thinker.set_attn_implementation(attention)
        model = Model(QwenOmniAdapter(thinker, tokenizer, name=f"random {name}"))
        for count in tokens or shape.tokens:
            features = make_features(shape, count, device)
            print(f"\n{name}, {attention}, about {count} AV tokens, grid {features.grid}")
            towers = measure_towers(model.adapter, thinker, features, repeats)
            print_towers(towers)
            prefill = measure_prefill(model, features, methods(shape), repeats)
            print_prefill(prefill)
            sys.stdout.flush()
            yield {
                "shape": name,
                "attention": attention,
                "tokens": count,
                "parameters": model.info.parameters,
                "towers": towers,
                "prefill": prefill,
            }


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code: 1 if a cell failed otherwise than for want of memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", action="append", choices=sorted(SHAPES), help="default: 7b, 3b")
    parser.add_argument("--tokens", type=int, action="append", help="default: 10, 20 and 40 k")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file, written after each pair of tables")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; try --shape tiny --device cpu")
    result: dict[str, Any] = {
        "schema": "omnidrop.gpu_tables/1",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "repeats": options.repeats,
        "sections": [],
    }
    print(f"{result['device']}, torch {torch.__version__}, transformers {transformers.__version__}")
    for name in options.shape or ["7b", "3b"]:
        try:
            for section in run(name, device, options.tokens, options.repeats):
                result["sections"].append(section)
                save(result, options.out)
        except torch.OutOfMemoryError:
            print(f"{name}: {OUT_OF_MEMORY}")
            result["sections"].append({"shape": name, "failed": OUT_OF_MEMORY})
            save(result, options.out)
        free(device)
    print(json.dumps(plain(result)))
    rows = [
        row
        for section in result["sections"]
        for table in ("towers", "prefill")
        for row in section.get(table, {}).values()
    ]
    return int(any(row.get("failed", OUT_OF_MEMORY) != OUT_OF_MEMORY for row in rows))


def save(result: dict[str, Any], path: Path | None) -> None:
    """Write what there is so far."""
    if path:
        path.write_text(json.dumps(plain(result), indent=1) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """The same with None for what is not a number, which JSON does not know."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value


if __name__ == "__main__":
    raise SystemExit(main())
