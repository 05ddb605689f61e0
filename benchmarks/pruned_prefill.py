"""Is the LLM prefill with pruning as much faster as its FLOPs say? Selection is included.

A random decoder, wide enough that arithmetic dominates, gets random embeddings (no encoders) and
runs one question unpruned and at each budget, in turns. The columns:

ideal     speed-up predicted by the FLOPs of `omnidrop.shapes`, which count the last layer as it is
          run
reached   measured speed-up (with entry, relevance and selection) divided by `ideal`
choosing  time of entry and selection as a share of the unpruned prefill

Before anything is timed, budget 1 must give the logits of the unpruned prefill, bit for bit.

    python benchmarks/pruned_prefill.py [--tokens 2000 8000 16000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import gc
import time
from functools import partial

import torch
from common import adapter_of, finish, in_turns, made_embeddings, median, random_thinker, table

import omnidrop
from omnidrop.engine.encode import Encoded
from omnidrop.engine.prefill import Prefilled, prefill
from omnidrop.engine.timing import Meter
from omnidrop.models.qwen2_5_omni.adapter import QwenOmniAdapter
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.tokens import Prompt

QUESTION = "What instrument plays first, and which colour is shown last?"
BUDGETS = (0.5, 0.3, 0.2, 0.1)
REACHED, CHOOSING = 0.85, 0.03


def run(
    adapter: QwenOmniAdapter, prompt: Prompt, clip: Encoded, method: Method
) -> tuple[Prefilled, float, float]:
    """Run a prefill; return its result, its seconds with entry, and the seconds of selection."""
    meter = Meter(adapter.device)
    start = time.perf_counter()
    done = prefill(adapter, prompt, clip, method, meter)
    seconds = time.perf_counter() - start
    chosen = sum(s.seconds for s in meter.stages() if s.name in ("entry", "selection"))
    return done, seconds, chosen


def timed(
    adapter: QwenOmniAdapter, prompt: Prompt, clip: Encoded, method: Method
) -> tuple[float, float]:
    """Return the seconds only, so that the KV cache is freed."""
    _, seconds, chosen = run(adapter, prompt, clip, method)
    gc.collect()
    return seconds, chosen


def main() -> None:
    """Check, measure, print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[2000, 8000, 16000])
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--intermediate", type=int, default=2736)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    adapter = adapter_of(
        random_thinker(
            layers=options.layers,
            hidden=options.hidden,
            heads=options.heads,
            kv_heads=max(1, options.heads // 7),
            intermediate=options.intermediate,
            device=options.device,
        )
    )
    rows, results = [], []
    for tokens in options.tokens:
        clip = made_embeddings(tokens, adapter)
        prompt = build_prompt(adapter.text, adapter.template, QUESTION, clip.media)
        plain, _, _ = run(adapter, prompt, clip, Method())
        one, _, _ = run(adapter, prompt, clip, omnidrop.OmniDrop(budget=1.0))
        if not torch.equal(plain.logits, one.logits):
            raise SystemExit(f"{tokens} tokens: budget 1 differs from the unpruned prefill")
        methods = {"none": Method()}
        methods |= {f"{b:g}": omnidrop.OmniDrop(budget=b) for b in options.budgets}
        kept = {name: run(adapter, prompt, clip, m)[0].survivors for name, m in methods.items()}
        given = in_turns(
            {name: partial(timed, adapter, prompt, clip, m) for name, m in methods.items()},
            options.repeats,
        )
        text = int((~prompt.tokens.av).sum())
        flops = {
            name: adapter.info.text.prefill_flops(text, [len(s) for s in layers], as_run=True)
            for name, layers in kept.items()
        }
        full = median([seconds for seconds, _ in given["none"]])
        for name in methods:
            seconds = median([s for s, _ in given[name]])
            choosing = median([c for _, c in given[name]]) / full
            speedup, ideal = full / seconds, flops["none"] / flops[name]
            met = speedup >= REACHED * ideal and choosing <= CHOOSING
            row = {
                "tokens": tokens,
                "budget": name,
                "seconds": seconds,
                "speedup": speedup,
                "ideal": ideal,
                "reached": speedup / ideal,
                "choosing": choosing,
                "gflops": flops[name] / seconds / 1e9,
                "met": met,
            }
            results.append(row)
            rows.append(list(row.values()))
    table(
        ["AV tokens", "budget", "s", "×", "ideal ×", "reached", "choosing", "GFLOP/s", "met"], rows
    )
    finish(
        {
            "layers": options.layers,
            "device": options.device,
            "dtype": adapter.info.dtype,
            "rows": results,
        }
    )


if __name__ == "__main__":
    main()
