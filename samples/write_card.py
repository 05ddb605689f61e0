"""Write the demo model's card from measured numbers: `samples/demo-model/README.md`.

    python samples/evaluate_demo.py --clips /tmp/avsynth --out samples/results
    python samples/write_card.py

Reads `results/demo.json` and `results/cut.json` (measured), `results/training.json` (what was
run) and `benchmarks/comparison/methods/summary.csv`. No table is written here by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "benchmarks")]

from results_table import CONTROL, Cells, pair, read  # noqa: E402

RESULTS = HERE / "results"
HEAD = """---
license: mit
pipeline_tag: video-text-to-text
library_name: transformers
---

# OmniDrop demo model

A very small omni-modal model in the true layout of Qwen2.5-Omni's thinker
(`Qwen2_5OmniThinkerForConditionalGeneration`): it hears instruments and sees coloured shapes, and
answers questions about them in a word. It exists so that everything in this project can be tried
and tested on answers, without a download and without a GPU. It knows nothing else; for real clips
use `Qwen/Qwen2.5-Omni-3B` or `-7B`.

## The world it knows

- **Sound**: piano, guitar, violin, trumpet, flute, organ, marimba, drums, one at a time, 1.5-4 s
  each; one short note (0.25-0.5 s) of an instrument that plays nowhere else; a short silence
  (0.5-1 s).
- **Picture**: circle, square, triangle, star, cross, ring in red, green, blue, yellow, purple,
  orange, one at a time, moving; a digit 1-6 in a colour, flashing in a corner for 0.5-1 s.
- **Time**: clips of 5-12 s at 2 frames a second, 112 x 112 pixels and a few other sizes.
- **Questions**: first, second, third, last, before and after X, how many, is there, does X come
  before Y, what goes with X, and what was there at the short note, the flash or the silence. See
  `samples/avsynth/wordings.py`. Answers are one or two lower-case words.

Not in it: two instruments or two shapes at once, speech, other words, general knowledge.

## Accuracy on AVSynth test

"""


def percent(value: float) -> str:
    """0.9134 as 91.3."""
    return f"{100 * value:.1f}"


def accuracy_table(result: dict) -> str:
    """Accuracy by family, sparse half and wording, beside the blind test."""
    names = {
        "all": "all",
        "family:sound": "sound only",
        "family:picture": "picture only",
        "family:both": "both together",
        "sparse:True": "sparse evidence",
        "sparse:False": "long events",
        "wording:seen": "wordings trained on",
        "wording:unseen": "wordings never trained on",
    }
    rows = [
        "| questions | n | accuracy, % | with another clip's sound and picture, % |",
        "|---|---:|---:|---:|",
    ]
    for key, name in names.items():
        value, count = result["accuracy"][key]
        rows.append(f"| {name} | {count} | {percent(value)} | {percent(result['blind'][key][0])} |")
    return "\n".join(rows)


def kind_table(result: dict) -> str:
    """Accuracy by kind of question, in one paragraph."""
    kinds = {k[5:]: v for k, v in result["accuracy"].items() if k.startswith("kind:")}
    return ", ".join(
        f"{k} {percent(v)} ({n})" for k, (v, n) in sorted(kinds.items(), key=lambda kv: kv[1][0])
    )


def random_table(result: dict) -> str:
    """Accuracy when clip tokens are dropped at random before the first layer."""
    rows = [
        "| clip tokens kept | all, % | sparse half, % |",
        "|---:|---:|---:|",
        f"| 100 % | {percent(result['accuracy']['all'][0])} "
        f"| {percent(result['accuracy']['sparse:True'][0])} |",
    ]
    for keep, part in result["random"].items():
        rows.append(f"| {float(keep):.0%} | {percent(part['all'])} | {percent(part['sparse'])} |")
    return "\n".join(rows)


def depth_line(result: dict) -> str:
    """The depth curve as a table row."""
    curve = result["depth"]
    head = "| removed before layer | " + " | ".join(str(i) for i in range(len(curve["all"]))) + " |"
    rule = "|---|" + "---:|" * len(curve["all"])
    rows = [
        f"| {part}, % | " + " | ".join(f"{100 * v:.0f}" for v in curve[part]) + " |"
        for part in ("all", "sparse")
    ]
    return "\n".join([head, rule, *rows])


METHODS = (
    CONTROL,
    "omnidrop",
    "omnidrop-even",
    "omnidrop-auto",
    "random",
    "random-sigmoid",
    "uniform",
    "fastv",
)
BUDGETS = ("0.3", "0.2", "0.1")


def gain(cells: Cells, label: str, against: str, budget: str, part: str = "all") -> str:
    """Points by which one is ahead of the other."""
    return f"{100 * (cells[label][budget][part] - cells[against][budget][part]):.1f}"


def method_table(cells: Cells) -> str:
    """OmniDrop and the controls at equal realised budget, from the comparison of all methods."""
    head = " | ".join(f"{float(b):.0%}" for b in BUDGETS)
    rows = [f"| right, all / sparse half, % | {head} |", "|---|" + "---:|" * len(BUDGETS)]
    for label in METHODS:
        budgets = ("1.0",) if label == CONTROL else BUDGETS
        shown = [pair(cells[label][budget]) for budget in budgets]
        rows.append(f"| {label} | " + " | ".join(shown + [""] * (len(BUDGETS) - len(shown))) + " |")
    return "\n".join(rows)


def card() -> str:
    """The whole card."""
    result = json.loads((RESULTS / "demo.json").read_text(encoding="utf-8"))
    cut = json.loads((RESULTS / "cut.json").read_text(encoding="utf-8"))
    run = json.loads((RESULTS / "training.json").read_text(encoding="utf-8"))
    cells, _ = read()
    chance = gain(cells, "random-sigmoid", "omnidrop", "0.2")
    chance_sparse = gain(cells, "random-sigmoid", "omnidrop", "0.2", "sparse")
    even_20, even_10 = (gain(cells, "omnidrop-even", "omnidrop", b) for b in ("0.2", "0.1"))
    stages = "\n".join(
        f"| {s['stage']} | {s['what']} | {s['steps']} | {s['minutes']} |" for s in run["stages"]
    )
    notes = "\n".join(f"- {n}" for n in run["notes"])
    limits = "\n".join(f"- {n}" for n in run["limits"])
    return f"""{HEAD}{accuracy_table(result)}

600 questions about 100 clips (H.264 and AAC files, decoded again), by greedy decoding; seeds,
pitches of the notes, two of three backgrounds and half of the wordings are the test's own. A word
outside the question's vocabulary counts as wrong. "With another clip's" is what can be got from
the question alone.

By kind: {kind_table(result)}.

## Dropping tokens

At random before the first layer (mean of three draws):

{random_table(result)}

All clip tokens taken out before a layer (16 = never):

{depth_line(result)}

Another model, trained with all clip tokens taken out before a random late layer in most steps
(`train_demo.py --cut`; an earlier run, whose towers and some settings were others),
{percent(cut["accuracy"]["all"][0])} % right:

{depth_line(cut)}

![Accuracy against depth](depth.png)

Both have read their clip by layer 9 to 11, so neither needs the cut for its depth. What both have
in common are the gaze losses, which teach the last token of the question to look at layer 8. With
the cut the early layers hold more: the middle of its curve is up to 25 points higher.

OmniDrop and controls, all test questions, equal realised budget (the other methods, intervals,
paired differences and OmniDrop taken apart: `benchmarks/comparison/`):

{method_table(cells)}

omnidrop-even is OmniDrop with evenly spaced tokens at entry, random-sigmoid draws tokens by chance
with OmniDrop's schedule. **OmniDrop as published does not win here, and its entry stage is why**:
tokens drawn at random, with its own schedule, do better by {chance} points at 20 %
({chance_sparse} on the sparse half), and evenly spaced tokens at entry by {even_20} at 20 % and
{even_10} at 10 %. The depth curve says why choosing late has little to win: this model has read its
clip by layer 9 of 16. FastV keeps two whole layers and cannot reach 10 %.

## Recipe

{run["parameters"]} parameters: 16 decoder layers of width 192 (3 query heads on 1 key-value head
of 64, M-RoPE sections 8 + 12 + 12, theta 1e6), vision tower 4 x 128, audio tower 3 x 128,
vocabulary {run["vocabulary"]}. Everything is in `samples/train_demo.py` and `samples/recipe/`.

| stage | what | steps | minutes |
|---|---|---:|---:|
{stages}

{notes}

## Limits

{limits}

## Licence and sources

MIT, as the project. Trained only on clips made by `samples/avsynth`: pictures drawn by it, notes
rendered with FluidSynth from FluidR3_GM ((c) Frank Wen, MIT). No weights or text of any other
model were used.
"""


def main() -> None:
    """Write the card and move the figure, where one was just drawn, beside it."""
    folder = HERE / "demo-model"
    (folder / "README.md").write_text(card(), encoding="utf-8")
    figure = RESULTS / "depth.png"
    if figure.exists():
        figure.replace(folder / "depth.png")


if __name__ == "__main__":
    main()
