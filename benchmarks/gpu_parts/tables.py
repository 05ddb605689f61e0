"""Formats a run's JSON as Markdown tables, for `docs/` and the README."""

from __future__ import annotations

from typing import Any

#: Part → title, and columns as (heading, key, decimals); a key that no row has is left out.
TABLES: dict[str, tuple[str, list[tuple[str, str, int]]]] = {
    "ceilings": (
        "What the chip can do",
        [
            ("TFLOP/s", "tflops", 0),
            ("TB/s", "tb_per_second", 2),
            ("GB/s", "gb_per_second", 1),
        ],
    ),
    "ttft": (
        "First token and memory, one question",
        [
            ("TTFT, s", "ttft", 3),
            ("× transformers", "over_transformers", 2),
            ("vision, s", "vision", 3),
            ("audio, s", "audio", 3),
            ("entry + prefill, s", "prefill", 3),
            ("× unpruned", "speedup", 2),
            ("of what FLOPs promise", "reached", 2),
            ("of the matrix rate", "of_ceiling", 2),
            ("peak GB", "peak_gb", 1),
            ("KV GB", "kv_gb", 2),
        ],
    ),
    "decoding": (
        "Decoding",
        [
            ("ms a token", "ms", 2),
            ("first tokens, ms", "first_ms", 2),
            ("× transformers", "over_transformers", 2),
            ("× its static cache, compiled", "over_static", 2),
        ],
    ),
    "second-question": (
        "Second question about a clip",
        [("first TTFT, s", "first", 3), ("second TTFT, s", "second", 3), ("ratio", "ratio", 2)],
    ),
    "accuracy": (
        "Numbers",
        [
            ("tokens equal", "equal", 0),
            ("of", "made", 0),
            ("ours to float32", "ours", 5),
            ("transformers' to float32", "theirs", 5),
            ("ratio", "ratio", 2),
            ("choices swapped", "swapped", 0),
            ("as it must be", "right", 0),
        ],
    ),
    "cold-start": (
        "A fresh process, seconds",
        [
            ("Python", "start of Python", 2),
            ("import torch", "import torch", 2),
            ("CUDA", "CUDA start", 2),
            ("import transformers", "import transformers", 2),
            ("import omnidrop", "import omnidrop", 2),
            ("load", "load", 2),
            ("first TTFT", "first_ttft", 3),
            ("warm TTFT", "warm_ttft", 3),
            ("ratio", "first_over_warm", 2),
            ("to the first token", "to_first_token", 2),
        ],
    ),
    "4bit": (
        "4-bit",
        [
            ("load, s", "load", 2),
            ("× bf16", "load_over_bf16", 2),
            ("held GB", "held_gb", 1),
            ("TTFT, s", "warm_ttft", 3),
            ("ms a token", "ms", 2),
        ],
    ),
    "demo": (
        "The demo model's answers",
        [
            ("questions", "questions", 0),
            ("right", "right", 3),
            ("sparse half", "sparse", 3),
            ("as the CPU", "as_cpu", 3),
            ("s a question", "seconds", 3),
        ],
    ),
}


def markdown(result: dict[str, Any]) -> str:
    """Return a run's tables.

    Parameters
    ----------
    result : dict
        As `benchmarks/gpu.py --out` writes it.
    """
    lines = [
        f"{result['device']}, torch {result['torch']}, transformers {result['transformers']}, "
        f"Python {result['python']}; bf16, sdpa, random weights; medians of up to "
        f"{result['repeats']} rounds in turns."
    ]
    for part, (title, columns) in TABLES.items():
        rows = [row for row in result["rows"] if row["part"] == part]
        groups = dict.fromkeys((row.get("shape"), row.get("tokens")) for row in rows)
        for shape, tokens in groups:
            chosen = [r for r in rows if (r.get("shape"), r.get("tokens")) == (shape, tokens)]
            lines += ["", f"**{title}{_of(shape, tokens)}**", "", *_table(chosen, columns)]
    if result["left_out"]:
        lines += ["", "Not measured:"]
        lines += [f"- {e['part']}, {e['name']}: {e['reason']}" for e in result["left_out"]]
    return "\n".join(lines) + "\n"


def _of(shape: str | None, tokens: int | None) -> str:
    words = [f", {shape.upper()}" if shape else "", f", {tokens} AV tokens" if tokens else ""]
    return "".join(words)


def _table(rows: list[dict[str, Any]], columns: list[tuple[str, str, int]]) -> list[str]:
    used = [c for c in columns if any(row.get(c[1]) is not None for row in rows)]
    lines = ["| " + " | ".join(["", *(heading for heading, _, _ in used)]) + " |"]
    lines.append("|" + "---|" * (len(used) + 1))
    for row in rows:
        cells = [_cell(row.get(key), places) for _, key, places in used]
        if "failed" in row:
            cells = [str(row["failed"]), *cells[1:]] if cells else []
        lines.append("| " + " | ".join([row["name"], *cells]) + " |")
    return lines


def _cell(value: Any, places: int) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{places}f}"
