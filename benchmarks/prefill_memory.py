"""Peak memory of the prefill: OmniDrop against transformers' own `forward`.

The same random decoder (vocabulary 152064) gets the same embeddings of one prompt. Each side runs
in a process of its own: transformers' thinker by `forward` with a KV cache, which is the first call
that `generate` makes, and OmniDrop, unpruned and at 30 %. Reported is the growth over what the
process held before the prefill (weights and embeddings): resident set on the CPU (Linux), allocated
bytes on a GPU. The first token of both sides must be the same. `estimate` is the prediction of
`omnidrop estimate` for the same prompt.

    python benchmarks/prefill_memory.py [--tokens 16000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch
from common import adapter_of, finish, made_embeddings, median, random_thinker, table

import omnidrop
from omnidrop.engine.encode import Encoded
from omnidrop.engine.memory import device_peak, reset_device_peak
from omnidrop.engine.prefill import prefill
from omnidrop.engine.timing import Meter
from omnidrop.models.qwen2_5_omni.adapter import QwenOmniAdapter
from omnidrop.profiling.estimate import Sizes, Tokens, peak_bytes
from omnidrop.prompt import build_prompt
from omnidrop.pruning.method import Method
from omnidrop.resident import mark, reset_mark
from omnidrop.tokens import Prompt

QUESTION = "What instrument plays first?"
VOCABULARY = 152064
SIDES = ("transformers", "omnidrop", "omnidrop 0.3")
TARGET = 0.5


class Peak:
    """Measure a block's peak memory above what was held when it began, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> Peak:
        if self.device.type == "cuda":
            self._before = torch.cuda.memory_allocated(self.device)
            reset_device_peak(self.device)
            return self
        if not reset_mark():
            raise SystemExit("This system does not reset the kernel's mark.")
        self._before = mark() or 0
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.bytes = (device_peak(self.device) or 0) - self._before
            return
        self.bytes = (mark() or 0) - self._before


def side(name: str, options: argparse.Namespace) -> dict[str, int]:
    """Measure one side in this process."""
    thinker = random_thinker(
        layers=options.layers,
        hidden=options.hidden,
        heads=options.hidden // 256,
        kv_heads=max(1, options.hidden // 2048),
        intermediate=options.hidden * 37 // 7,
        vocab=VOCABULARY,
        device=options.device,
    )
    adapter = adapter_of(thinker)
    clip = made_embeddings(options.tokens, adapter)
    prompt = build_prompt(adapter.text, adapter.template, QUESTION, clip.media)
    if name == "transformers":
        with torch.inference_mode():
            given = inputs(adapter, prompt, clip)
        with torch.inference_mode(), Peak(adapter.device) as peak:
            out = thinker(**given, use_cache=True)
            token = int(out.logits[0, -1].argmax())
    else:
        method = Method() if name == "omnidrop" else omnidrop.OmniDrop(budget=0.3)
        with Peak(adapter.device) as peak:
            done = prefill(adapter, prompt, clip, method, Meter(adapter.device))
            token = int(done.logits.argmax())
        return {
            "bytes": peak.bytes,
            "token": token,
            "estimate": estimate(adapter, len(prompt.tokens), done.cache.lengths),
        }
    return {"bytes": peak.bytes, "token": token}


def estimate(adapter: QwenOmniAdapter, rows: int, lengths: tuple[int, ...]) -> int:
    """Return the peak that `omnidrop estimate` predicts, less what was held before the prefill."""
    width = torch.empty(0, dtype=adapter.dtype).element_size()
    info = adapter.info
    sizes = Sizes(info.shapes, weights=0, width=width)
    tokens = Tokens(rows, 0, 0, None, True)
    return peak_bytes(sizes, tokens, lengths) - rows * info.text.hidden * width


def inputs(adapter: QwenOmniAdapter, prompt: Prompt, clip: Encoded) -> dict[str, torch.Tensor]:
    """Return the arguments of the thinker's `forward`: embeddings and M-RoPE positions."""
    tokens = prompt.tokens
    embeds = adapter.embed(prompt.ids.to(adapter.device))
    own, *_ = clip.in_prompt_order(tokens.video[tokens.av])
    embeds[tokens.av.to(adapter.device)] = own.to(embeds.dtype)
    positions = prompt.positions[:, None].to(adapter.device)
    return {"inputs_embeds": embeds[None], "position_ids": positions}


def main() -> None:
    """Run the sides in turns, print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=16000)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(side(options.side, options)))
        return
    given: dict[str, list[dict[str, int]]] = {name: [] for name in SIDES}
    for _ in range(options.repeats):
        for name in SIDES:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", name]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            given[name].append(json.loads(done.stdout))
    first = {run["token"] for name in SIDES[:2] for run in given[name]}
    if len(first) != 1:
        raise SystemExit(f"the first tokens differ: {given}")
    peaks = {name: median([run["bytes"] for run in runs]) for name, runs in given.items()}
    spread = {name: [r["bytes"] for r in runs] for name, runs in given.items()}
    rows = [
        [
            name,
            peak / 2**20,
            min(spread[name]) / 2**20,
            max(spread[name]) / 2**20,
            given[name][0].get("estimate", 0) / 2**20 or None,
            peak / peaks["transformers"],
            None if name == "transformers" else peak <= TARGET * peaks["transformers"],
        ]
        for name, peak in peaks.items()
    ]
    table(["prefill", "peak MiB", "lowest", "highest", "estimate", "ratio", f"≤ {TARGET}"], rows)
    finish({"tokens": options.tokens, "hidden": options.hidden, "peak_bytes": peaks})


if __name__ == "__main__":
    main()
