"""Accuracy over the length of a clip, and two ways to ask about clips longer than the trained ones.

    python benchmarks/length.py --clips 20 --seconds 10 20 40 80
    python benchmarks/length.py --model /tmp/lab/lab-model --clips 20

AVSynth's clips are made longer: every event lasts longer by the same factor, so that questions and
answers stay what they are (`samples/avsynth/longer.py`). Each length is asked

as it is     at its true times
stretched    with its times divided, so that its last token stands where a clip of --trained
             seconds would have it
in windows   about each piece of --trained seconds alone; the surest answer counts

with every token, with the same share of tokens at each length (--budget), and with the same number
of tokens at each length (so many as --budget keeps of a clip of --trained seconds).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import ROOT, finish, table

import omnidrop
from omnidrop.engine.model import Model
from omnidrop.evaluation.items import Item, QuestionSet
from omnidrop.evaluation.runner import RunOptions, style_of
from omnidrop.evaluation.scoring import ask_text, read_reply
from omnidrop.evaluation.sets import read_set
from omnidrop.evaluation.stats import wilson
from omnidrop.models.family import Template
from omnidrop.options import GenerateOptions
from omnidrop.pruning.method import Method
from omnidrop.pruning.registry import get_method
from omnidrop.tokens import ClipTokens, Media

sys.path.append(str(ROOT / "samples"))

FIRST_SEED = 940_000_000
WAYS = ("as it is", "stretched", "in windows")
GENERATE = GenerateOptions(max_new_tokens=8)


class Stretched:
    """A template that divides a long clip's times.

    Parameters
    ----------
    inner : Template
        Of the model's family.
    seconds : float
        Longest clip whose times stay as they are.
    """

    def __init__(self, inner: Template, seconds: float) -> None:
        self._inner, self._seconds = inner, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def position_dtype(self) -> torch.dtype:
        """Times are no whole numbers any more."""
        return torch.float32

    def clip(self, media: Media, start: int) -> ClipTokens:
        """Lay out a clip; the first axis of its positions is divided where it is too long."""
        found = self._inner.clip(media, start)
        positions = found.positions.float().clone()
        longest = self._seconds * self._inner.positions_per_second
        last = float(positions[0].max()) - start
        if last > longest:
            positions[0] = start + (positions[0] - start) * (longest / last)
        return replace(found, positions=positions, end=float(positions.max()) + 1)


@contextmanager
def stretched(model: Model, seconds: float) -> Iterator[None]:
    """Stretch what is asked in the block."""
    usual = model.adapter.template
    model.adapter.template = Stretched(usual, seconds)  # type: ignore[assignment]
    try:
        yield
    finally:
        model.adapter.template = usual


def make(folder: Path, clips: int, seconds: float) -> QuestionSet:
    """Write the clips of one length and their questions."""
    from avsynth import testset
    from avsynth.longer import lengthened
    from avsynth.media import write_clip

    seeds = testset.fresh_seeds(FIRST_SEED, clips)
    for seed in seeds:
        clip = testset.test_clip(seed)
        write_clip(folder / testset.clip_name(seed), lengthened(clip, max(seconds, clip.duration)))
    lines, _ = testset.build(seeds)
    path = folder / "test.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return read_set(path)


def ask(
    model: Model, questions: QuestionSet, way: str, methods: dict[str, Method], trained: float
) -> dict[str, list[bool]]:
    """Return which questions each method answers right."""
    style = style_of(RunOptions(), questions, model)
    right: dict[str, list[bool]] = defaultdict(list)
    by_clip: dict[Path, list[Item]] = defaultdict(list)
    for item in questions.items:
        by_clip[item.video].append(item)
    for video, asked in by_clip.items():
        best: dict[tuple[str, str], tuple[float, str]] = {}
        for start, end in _windows(video, trained) if way == "in windows" else ((None, None),):
            with model.open(video, start=start, end=end) as session:
                for item in asked:
                    for name, method in methods.items():
                        answer = session.ask(
                            ask_text(item, style), method=method, options=GENERATE, anyway=True
                        )
                        found = (sum(answer.logprobs), answer.text)
                        key = (item.id, name)
                        best[key] = max(best.get(key, found), found)
        for item in asked:
            for name in methods:
                right[name].append(read_reply(best[item.id, name][1], item, style).right)
    return right


def _windows(video: Path, seconds: float) -> list[tuple[float, float]]:
    """Return equal pieces of a clip, each of at most so many seconds."""
    with omnidrop.open_clip(video) as clip:
        whole = clip.duration
    count = max(1, round(whole / seconds + 0.49))
    return [(whole * i / count, whole * (i + 1) / count) for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 20, 40, 80, 160, 300])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--method", default="omnidrop-auto")
    parser.add_argument("--budget", type=float, default=0.3)
    parser.add_argument("--trained", type=float, default=10.0, help="seconds, see above")
    options = parser.parse_args()
    model = omnidrop.load(options.model, device="cpu")
    rows, found = [], []
    for seconds in options.seconds:
        methods: dict[str, Method] = {"unpruned": Method()}
        methods["share"] = get_method(options.method, budget=options.budget)
        fewer = options.budget * min(1.0, options.trained / seconds)
        methods["number"] = get_method(options.method, budget=fewer)
        with tempfile.TemporaryDirectory() as temporary:
            questions = make(Path(temporary), options.clips, seconds)
            for way in options.ways:
                if way != "as it is" and seconds <= options.trained:
                    continue
                if way == "stretched":
                    with stretched(model, options.trained):
                        right = ask(model, questions, way, methods, options.trained)
                else:
                    right = ask(model, questions, way, methods, options.trained)
                cells = []
                for hits in right.values():
                    low, high = wilson(sum(hits), len(hits))
                    share = sum(hits) / len(hits)
                    cells.append(f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
                rows.append((f"{seconds:g}", way, *cells))
                counts = {name: sum(hits) for name, hits in right.items()}
                asked = {"seconds": seconds, "way": way, "questions": len(questions.items)}
                found.append(asked | {"right": counts})
                print(*rows[-1], flush=True)
    table(("seconds", "asked", "unpruned, %", f"{options.budget:g}, %", "same number, %"), rows)
    finish({"model": options.model, "method": options.method, "rows": found})


if __name__ == "__main__":
    main()
