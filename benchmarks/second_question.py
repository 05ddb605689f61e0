"""TTFT of the second question on a clip as a share of the first one's.

Each run opens a new session and asks twice. The first question pays for the encoders and for the
clip's rows in all layers. The second reuses the clip's keys, values and states of the layers before
the first one that depends on the question (prefix KV reuse). These are all layers when nothing is
dropped or the method never looks at the question, and otherwise those before the first drop.

The model has random weights and is narrow, with the 7B's proportions between decoder, MLP and
vision encoder. Patches and log-mel are random. --model and --clip use a checkpoint and a file
instead.

Before anything is timed, the second answer must equal the answer of a fresh session, and for the
first method that of a fresh process. `apart` (first method only) is the time of a first question's
decoder pass with the clip's rows computed separately, divided by that with all rows in one pass.

    python benchmarks/second_question.py [--tokens 8000] [--repeats 5]
    python benchmarks/second_question.py --model samples/demo-model --clip samples/long.mp4
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import adapter_of, finish, in_turns, made_features, median, random_thinker, table

import omnidrop
from omnidrop.engine import prefill
from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.model import Model
from omnidrop.engine.session import Session
from omnidrop.pruning.method import Method
from omnidrop.report.trace import Answer

FIRST = "Who is on screen then?"
SECOND = "What instrument plays first, and which colour is shown last?"
OPTIONS = GenerateOptions(max_new_tokens=8)
METHODS: dict[str, Method] = {
    "none": Method(),
    "omnidrop 0.5": omnidrop.OmniDrop(budget=0.5),
    "omnidrop 0.3 (default)": omnidrop.OmniDrop(budget=0.3),
    "omnidrop 0.2": omnidrop.OmniDrop(budget=0.2),
    "fastv 0.3": omnidrop.FastV(budget=0.3),
    "uniform 0.3": omnidrop.Uniform(budget=0.3),
}
TARGET = 0.4


@dataclass(frozen=True)
class Subject:
    """A model and the clip that the questions are about."""

    model: Model
    clip: Path | None
    tokens: int

    def open(self) -> Session:
        """Open a new session, with nothing to reuse."""
        if self.clip is not None:
            return self.model.open(self.clip)
        return self.model.features(made_features(self.tokens))

    def ask(self, method: Method, *questions: str) -> list[Answer]:
        """Ask one question in a session."""
        with self.open() as session:
            return [session.ask(q, method=method, options=OPTIONS, anyway=True) for q in questions]


def subject(options: argparse.Namespace) -> Subject:
    """Load the checkpoint and clip, or make random ones."""
    if options.model is not None:
        model = omnidrop.load(str(options.model), device="cpu", offline=True)
    else:
        thinker = random_thinker(
            layers=options.layers,
            hidden=512,
            heads=2,
            kv_heads=1,
            intermediate=2736,
            vision=(8, 256, 684),
        )
        model = Model(adapter_of(thinker))
    return Subject(model, options.clip, options.tokens)


def seconds(answer: Answer, name: str) -> float:
    """Return the seconds that a stage took."""
    return sum(stage.seconds for stage in answer.trace.stages if stage.name == name)


def reused(answer: Answer) -> str:
    """Return the trace's note on which layers were reused."""
    names = [s.name for s in answer.trace.stages if s.reused and s.name.startswith("prefix")]
    return names[0].removeprefix("prefix through layer ") if names else "none"


def together(subject: Subject, method: Method) -> Answer:
    """Ask a first question with all rows in one pass, so that nothing can be reused."""
    before, prefill.SPLIT_FROM = prefill.SPLIT_FROM, sys.maxsize
    try:
        return subject.ask(method, FIRST)[0]
    finally:
        prefill.SPLIT_FROM = before


def main() -> None:
    """Check, measure, print the table, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--fresh", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if (options.model is None) != (options.clip is None):
        parser.error("give --model and --clip together")
    it = subject(options)
    if options.fresh:  # this process answers the second question only
        print(it.ask(METHODS[options.methods[0]], SECOND)[0].token_ids)
        return
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--fresh"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows, results = [], {}
    for i, name in enumerate(options.methods):
        method = METHODS[name]
        second, (fresh,) = it.ask(method, FIRST, SECOND)[1], it.ask(method, SECOND)
        if second.token_ids != fresh.token_ids:
            raise SystemExit(f"{name}: the second answer differs from a fresh session's")
        if not i and str(second.token_ids) != done.stdout.strip():
            raise SystemExit(f"{name}: the second answer differs from a fresh process's")
        runs = {"apart": lambda m=method: it.ask(m, FIRST, SECOND)}
        if not i:
            runs["together"] = lambda m=method: together(it, m)
        given = in_turns(runs, options.repeats)
        firsts, seconds_ = zip(*given["apart"], strict=True)
        first = median([a.trace.ttft for a in firsts])
        later = median([a.trace.ttft for a in seconds_])
        one = median([seconds(a, "prefill") for a in firsts])
        two = median([seconds(a, "prefill") for a in seconds_])
        whole = [seconds(a, "prefill") for a in given.get("together", ())]
        row = {
            "reused": reused(second),
            "first_ttft": first,
            "second_ttft": later,
            "ratio": later / first,
            "first_prefill": one,
            "second_prefill": two,
            "prefill_ratio": two / one,
            "apart": one / median(whole) if whole else None,
            "met": later / first <= TARGET,
        }
        rows.append([name, *row.values()])
        results[name] = row
    trace = second.trace
    print(f"{trace.av_tokens} AV tokens, {trace.layers} layers; second answers equal fresh ones")
    table(
        [
            "method",
            "layers reused",
            "TTFT 1, s",
            "TTFT 2, s",
            "ratio",
            "prefill 1, s",
            "prefill 2, s",
            "ratio",
            "apart",
            f"≤ {TARGET}",
        ],
        rows,
    )
    finish({"av_tokens": trace.av_tokens, "layers": trace.layers, "methods": results})


if __name__ == "__main__":
    main()
