"""Measure the demo or lab model on AVSynth: accuracy, blind test, depth curve, random dropping.

    python samples/make_clips.py --out /tmp/avsynth
    python samples/evaluate_demo.py --clips /tmp/avsynth --out samples/results
    python samples/evaluate_demo.py --clips /tmp/avsynth --check 40     compare with `generate`
    python samples/evaluate_demo.py --clips /tmp/avsynth --model lab-model --name lab --out results

Writes `NAME.json` and `depth.png` into `--out`. Pruning methods are compared by `omnidrop eval` on
the same clips and questions (`benchmarks/comparison.sh`).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from avsynth import testset  # noqa: E402
from recipe.answering import (  # noqa: E402
    as_question,
    decode,
    generate_one,
    load_demo,
    media_sample,
)
from recipe.measure import Scored, answer_all, table  # noqa: E402


def depth_figure(curves: dict[str, dict[str, list]], path: Path) -> None:
    """Draw accuracy over the layer before which all clip tokens are removed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name, curve in curves.items():
        for part, style in (("all", "-o"), ("sparse", "--s")):
            ax.plot(
                curve.get("layers", range(len(curve[part]))),
                [100 * v for v in curve[part]],
                style,
                ms=3.5,
                label=f"{name}, {part}",
            )
    last = max(curve.get("layers", range(len(curve["all"])))[-1] for curve in curves.values())
    label = f"clip tokens removed before layer ({last} = never)"
    ax.set(xlabel=label, ylabel="accuracy, %", ylim=(0, 102))
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    fig.savefig(path, dpi=130)


def sparse_part(scored: list[Scored]) -> float:
    """Return the accuracy on questions with sparse evidence."""
    half = [s.right for s in scored if s.question.sparse]
    return sum(half) / max(1, len(half))


def overall(scored: list[Scored]) -> float:
    """Return the accuracy on all questions."""
    return sum(s.right for s in scored) / max(1, len(scored))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=HERE / "demo-model")
    parser.add_argument("--clips", type=Path, required=True, help="folder written by make_clips.py")
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument(
        "--check", type=int, default=0, help="compare this many answers with generate"
    )
    parser.add_argument("--name", default="demo", help="of the model, for the results")
    parser.add_argument("--first", type=int, help="clips that are asked about; default all")
    parser.add_argument("--every", type=int, default=1, help="layers between the curve's points")
    parser.add_argument("--draws", type=int, default=3, help="runs of random dropping")
    parser.add_argument("--quick", action="store_true", help="accuracy only")
    parser.add_argument(
        "--beside", type=Path, help="demo.json of a model trained with --cut, as a second curve"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, trunk, tok = load_demo(args.model)
    lines = testset.read()
    names = list(dict.fromkeys(x["video"] for x in lines))[: args.first]
    lines = [x for x in lines if x["video"] in names]
    media = {v: decode(args.clips / v) for v in names}
    samples = {v: media_sample(model, *m) for v, m in media.items()}
    asked: dict[str, list] = {v: [] for v in media}
    for x in lines:
        asked[x["video"]].append(as_question(x))
    pairs = [(samples[v], q) for v, q in asked.items()]
    if args.check:
        same = 0
        packed = answer_all(trunk, tok, pairs)
        said = {s.question.text + str(i): s.said for i, s in enumerate(packed)}
        flat = [(v, q) for v, qs in asked.items() for q in qs]
        step = max(1, len(flat) // args.check)
        picked = list(range(0, len(flat), step))[: args.check]
        for i in picked:
            v, q = flat[i]
            same += generate_one(model, tok, *media[v], q.text) == said[q.text + str(i)].strip()
        print(f"generate gives the same answer to {same} of {len(picked)}")
        return
    scored = answer_all(trunk, tok, pairs)
    result: dict = {"accuracy": table(scored)}
    if (kept := args.model / "language.json").exists():  # of the lab model
        result["language"] = json.loads(kept.read_text(encoding="utf-8"))
    for key, (value, count) in result["accuracy"].items():
        print(f"{key:28} {100 * value:5.1f} %  of {count}")
    if not args.quick:
        kinds: dict[tuple, list[str]] = {}
        for v, s in samples.items():
            kinds.setdefault((s.clip.sounds is None, s.clip.shapes is None), []).append(v)
        other = {
            v: group[(i + 1) % len(group)] for group in kinds.values() for i, v in enumerate(group)
        }
        blind = answer_all(trunk, tok, [(samples[other[v]], q) for v, q in asked.items()])
        result["blind"] = table(blind)
        result["random"] = {}
        for keep in (0.5, 0.3, 0.2, 0.1):
            runs = [answer_all(trunk, tok, pairs, keep=keep, seed=s) for s in range(args.draws)]
            result["random"][str(keep)] = {
                "all": sum(map(overall, runs)) / args.draws,
                "sparse": sum(map(sparse_part, runs)) / args.draws,
            }
        deep = len(trunk.text.layers)
        cuts = sorted({*range(0, deep, args.every), deep})
        curve: dict[str, list] = {"layers": cuts, "all": [], "sparse": []}
        for cut in cuts:
            run = answer_all(trunk, tok, pairs, cut=cut)
            curve["all"].append(overall(run))
            curve["sparse"].append(sparse_part(run))
        result["depth"] = curve
        for key in ("random", "depth"):
            print(key, json.dumps(result[key]))
        print(
            "blind",
            {k: round(100 * v[0], 1) for k, v in result["blind"].items() if "kind" not in k},
        )
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / f"{args.name}.json").write_text(
            json.dumps(result, indent=1) + "\n", encoding="utf-8"
        )
        if "depth" in result:
            curves = {f"{args.name} model": result["depth"]}
            if args.beside:
                curves["trained with the cut"] = json.loads(args.beside.read_text())["depth"]
            depth_figure(curves, args.out / "depth.png")


if __name__ == "__main__":
    main()
