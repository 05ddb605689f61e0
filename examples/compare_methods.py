"""Ask the same question under several methods at the same budget.

    python examples/compare_methods.py samples/duet.mp4 "What instrument plays last?"

One clip shows how methods differ; `omnidrop eval` tests which differences are significant.
"""

from __future__ import annotations

import argparse

import omnidrop

METHODS = ("none", "omnidrop", "uniform+omnidrop", "omnidrop-auto", "seats", "random")


def main() -> None:
    """Ask under each method and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("question")
    parser.add_argument("--model", default="demo", help="demo, 3b, 7b, a hub name or a folder")
    parser.add_argument("--budget", type=float, default=0.2)
    chosen = parser.parse_args()

    model = omnidrop.load(chosen.model)
    with model.open(chosen.clip) as clip:
        print(f"{'method':20}{'budget':>8}{'FLOPs':>8}  answer")
        for name in METHODS:
            budget = 1.0 if name == "none" else chosen.budget
            answer = clip.ask(chosen.question, method=omnidrop.get_method(name, budget=budget))
            trace = answer.trace
            flops = trace.flops_prefill / trace.flops_prefill_unpruned
            print(f"{name:20}{trace.realised_budget:8.1%}{flops:8.1%}  {answer.text}")


if __name__ == "__main__":
    main()
