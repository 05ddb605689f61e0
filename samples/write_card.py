"""Write the demo model's card from measured numbers: `samples/demo-model/README.md`.

    python samples/evaluate_demo.py --clips /tmp/avsynth --out samples/results
    python samples/write_card.py

Reads `results/demo.json` (measured), `results/training.json` (what was run) and, once there,
`results/methods.json` (`compare_methods.py`). No number is written here by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
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
each; one
  short note (0.25-0.5 s) of an instrument that plays nowhere else; a short silence (0.5-1 s).
- **Picture**: circle, square, triangle, star, cross, ring in red, green, blue, yellow, purple,
orange, one at
  a time, moving; a digit 1-6 in a colour, flashing in a corner for 0.5-1 s.
- **Time**: clips of 5-12 s at 2 frames a second, 112 x 112 pixels and a few other sizes.
- **Questions**: first, second, third, last, before and after X, how many, is there, does X come
before Y,
  what goes with X, and what was there at the short note, the flash or the silence. See
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


def method_table(name: str = "methods.json") -> str:
    """Pruning methods at equal realised budget, if they were measured (a list of rows)."""
    path = RESULTS / name
    if not path.exists():
        return "Not measured yet with these weights; `samples/compare_methods.py` fills this in."
    rows = ["| method | budget | realised | all, % | sparse half, % |", "|---|---:|---:|---:|---:|"]
    for r in json.loads(path.read_text(encoding="utf-8")):
        rows.append(
            f"| {r['method']} | {r['budget']:.0%} | {r['realised']:.3f} | {percent(r['all'])} "
            f"| {percent(r['sparse'])} |"
        )
    return "\n".join(rows)


def card() -> str:
    """The whole card."""
    result = json.loads((RESULTS / "demo.json").read_text(encoding="utf-8"))
    run = json.loads((RESULTS / "training.json").read_text(encoding="utf-8"))
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

![Accuracy against depth](depth.png)

OmniDrop and the baselines, all test questions, equal realised budget:

{method_table()}

**OmniDrop as published does not win here, and its entry stage is why.** With OmniDrop's own
schedule but tokens drawn at random, more questions are answered right than with its selection, on
the sparse half too. With evenly spaced tokens at entry in place of encoder attention and merging
(`entry="uniform"`, ours), and the question's attention inside, it leads every other method at 20 %
and 10 %, and stays behind uniform and random at 30 %. One run, seeds fixed, no intervals: 600
questions give a standard error of about 1.7 points on all and 2.5 on the sparse half, so only the
lead at 10 % is far outside it. FastV keeps two whole layers and cannot reach 10 %.

Other fields, first 300 questions, one changed at a time:

{method_table("variants.json")}

Neither the diversity term nor the rows that ask make a difference beyond chance. The depth curve
says why choosing late has little to win: this model has read most of its clip by layer 9 of 16.

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
    """Write the card and put the figure beside it."""
    folder = HERE / "demo-model"
    (folder / "README.md").write_text(card(), encoding="utf-8")
    figure = RESULTS / "depth.png"
    if figure.exists():
        (folder / "depth.png").write_bytes(figure.read_bytes())


if __name__ == "__main__":
    main()
