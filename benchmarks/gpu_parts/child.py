"""A fresh process that loads a checkpoint and answers, and prints the seconds of each part.

Run by `fresh`, not by hand. Every part is printed as a line of JSON when it ends; after `--seconds`
the stack is printed to stderr and the process ends.
"""

import time

FIRST = time.time()

import argparse  # noqa: E402
import faulthandler  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

QUESTION = "What instrument plays first?"


class Marks:
    """Seconds between one mark and the next."""

    def __init__(self, began: float) -> None:
        self._last = began

    def add(self, name: str, at: float | None = None, **values: object) -> None:
        """Print the seconds since the last mark."""
        at = time.time() if at is None else at
        print(json.dumps({"mark": name, "seconds": at - self._last, **values}), flush=True)
        self._last = time.time()


def main() -> None:
    """Load, answer, and print the times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--who", choices=("omnidrop", "transformers"), default="omnidrop")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quantize", choices=("4bit", "8bit"))
    parser.add_argument("--plain", action="store_true", help="let transformers read the weights")
    parser.add_argument("--grid", type=int, nargs=3, default=(10, 16, 32))
    parser.add_argument("--new", type=int, default=9)
    parser.add_argument("--began", type=float, required=True)
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    faulthandler.dump_traceback_later(options.seconds, exit=True)
    marks = Marks(options.began)
    marks.add("start of Python", FIRST)
    import torch

    marks.add("import torch")
    cuda = options.device.startswith("cuda")
    if cuda:
        torch.zeros(1, device=options.device)
        torch.cuda.synchronize()
    marks.add("CUDA start")
    from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni  # noqa: F401

    marks.add("import transformers")
    if options.quantize:
        import bitsandbytes  # noqa: F401

        marks.add("import bitsandbytes")
    if options.who == "transformers":
        _load_theirs(options, torch)
    else:
        _ours(options, torch, marks)
    if cuda:
        torch.cuda.synchronize()
    held = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    marks.add("load" if options.who == "transformers" else "end", peak_gb=held)


def _load_theirs(options: argparse.Namespace, torch: object) -> object:
    """Load the thinker as transformers' documentation does."""
    from transformers import BitsAndBytesConfig, Qwen2_5OmniThinkerForConditionalGeneration

    settings: dict[str, object] = {}
    if options.quantize:
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=options.quantize == "4bit",
            load_in_8bit=options.quantize == "8bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,  # type: ignore[attr-defined]
        )
    return Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        options.folder,
        dtype=torch.bfloat16,  # type: ignore[attr-defined]
        device_map={"": options.device},
        **settings,
    )


def _ours(options: argparse.Namespace, torch, marks: Marks) -> None:  # type: ignore[no-untyped-def]
    """Load the model and answer three times from precomputed features."""
    import omnidrop
    import omnidrop.engine.model
    import omnidrop.pruning.methods.omnidrop
    from omnidrop.engine.encode import Features

    if options.plain:
        from omnidrop.models import pinned

        pinned.reads_pinned = lambda device: False
    marks.add("import omnidrop")
    grid = tuple(options.grid)
    generator = torch.Generator().manual_seed(0)
    features = Features(
        patches=torch.rand(grid[0] * grid[1] * grid[2], 1176, generator=generator),
        grid=grid,
        second_per_grid=1.0,
        mel=torch.rand(128, 100 * grid[0], generator=generator),
    )
    marks.add("features, made up: not counted")
    model = omnidrop.load(
        options.folder,
        device=options.device,
        dtype="bfloat16",
        quantize=options.quantize,
        offline=True,
    )
    if model.adapter.device.type == "cuda":
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated() / 1e9
    else:
        held = None
    marks.add("load", held_gb=held)
    greedy = omnidrop.GenerateOptions(max_new_tokens=options.new)
    for name in ("first question", "second question", "third question"):
        with model.features(features) as session:
            trace = session.ask(
                QUESTION, method=omnidrop.OmniDrop(budget=0.3), options=greedy, reuse=False
            ).trace
        marks.add(name, ttft=trace.ttft, tokens_per_second=trace.tokens_per_second)


if __name__ == "__main__":
    main()
