"""How often a model is right when a question stands alone, and when it sees the turns before it.

The questions about each clip of AVSynth are asked in their order, every one twice: alone, and as
the next turn of a conversation. They do not refer to each other, so earlier turns can only
distract. A reply is right if it is the answer, word for word.

    python samples/make_clips.py --out avsynth
    python benchmarks/follow_ups.py avsynth [--clips 100] [--model demo]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import omnidrop
from omnidrop.evaluation.items import Item
from omnidrop.evaluation.sets import read_set
from omnidrop.evaluation.stats import wilson


def main() -> None:
    """Print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, help="folder of the rendered clips")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--budget", type=float, default=0.3)
    options = parser.parse_args()
    model = omnidrop.load(options.model)
    method = omnidrop.OmniDrop(budget=options.budget)
    by_clip: dict[Path, list[Item]] = {}
    for item in read_set("avsynth", videos=options.videos).items:
        by_clip.setdefault(item.video, []).append(item)
    turns: dict[int, list[tuple[bool, bool]]] = {}
    for clip, items in list(by_clip.items())[: options.clips]:
        with model.open(clip) as session:
            conversation = session.conversation()
            for number, item in enumerate(items, 1):
                alone = session.ask(item.question, method=method)
                turn = conversation.ask(item.question, method=method)
                pair = (_right(alone, item), _right(turn, item))
                turns.setdefault(number, []).append(pair)
    rows = [
        {
            "turn": number,
            "questions": len(pairs),
            "alone": sum(alone for alone, _ in pairs),
            "in_conversation": sum(turn for _, turn in pairs),
        }
        for number, pairs in sorted(turns.items())
    ]
    print(f"{'turn':>4} {'questions':>9} {'right alone':>22} {'right in conversation':>22}")
    for row in rows:
        n = row["questions"]
        print(
            f"{row['turn']:>4} {n:>9} {_rate(row['alone'], n)} {_rate(row['in_conversation'], n)}"
        )
    print(json.dumps({"model": options.model, "budget": options.budget, "turns": rows}))


def _right(answer: omnidrop.Answer, item: Item) -> bool:
    return answer.text.strip().casefold() == item.answer.casefold()


def _rate(right: int, total: int) -> str:
    low, high = wilson(right, total)
    return f"{right / total:>8.0%} ({low:.0%} to {high:.0%})".rjust(22)


if __name__ == "__main__":
    main()
