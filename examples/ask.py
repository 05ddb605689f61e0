"""Ask two questions about one clip, and print what was kept.

    python examples/ask.py samples/duet.mp4

The encoders run once: the second question reuses the clip's embeddings, keys and values.
"""

from __future__ import annotations

import argparse

import omnidrop


def main() -> None:
    """Ask, and print the answers with their cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("--model", default="demo", help="demo, 3b, 7b, a hub name or a folder")
    parser.add_argument("--budget", type=float, default=0.3)
    chosen = parser.parse_args()

    model = omnidrop.load(chosen.model)
    method = omnidrop.OmniDrop(budget=chosen.budget)
    with model.open(chosen.clip) as clip:
        for question in ("What instrument plays first?", "What instrument plays last?"):
            answer = clip.ask(question, method=method)
            trace = answer.trace
            print(f"{question} {answer.text}")
            print(f"  first token after {trace.ttft:.2f} s")
            print(f"  tokens entering each layer: {list(trace.kept_per_layer)}")
            print(
                f"  prefill: {trace.flops_prefill / trace.flops_prefill_unpruned:.0%} of the FLOPs"
            )


if __name__ == "__main__":
    main()
