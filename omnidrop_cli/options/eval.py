"""Options of `omnidrop eval`: which methods, which questions, where results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omnidrop.errors import UsageError, printable
from omnidrop.files import check_target
from omnidrop.options import GenerateOptions
from omnidrop_cli.options.common import Debug, Json, Quiet
from omnidrop_cli.options.groups import build, option
from omnidrop_cli.options.outside import Anyway
from omnidrop_cli.options.parsing import (
    parse_budgets,
    parse_share,
    parse_value,
    setting_name,
    split_values,
    split_words,
)

if TYPE_CHECKING:
    from omnidrop.clip.options import ClipOptions
    from omnidrop.evaluation.runner import RunOptions

METHODS = "omnidrop,random,uniform"
BUDGETS = (0.5, 0.3, 0.2, 0.1)
EVERY = "all"

# Options that every command with a question set has.
Videos = Annotated[
    Path | None,
    option("--videos", panel="Questions", metavar="DIR", help="Folder of the set's clips."),
]
Limit = Annotated[
    int | None,
    option("--limit", panel="Questions", metavar="N", help="Take the first N questions."),
]
Style = Annotated[
    str | None,
    option(
        "--style",
        panel="Questions",
        metavar="HOW",
        help="letters lists the choices as A, B, …; words lists them in one line; plain asks the "
        "question as it is. Default: the set's own, else what the model has learned.",
    ),
]
System = Annotated[
    str | None,
    option(
        "--system",
        panel="Questions",
        metavar="TEXT",
        help="System prompt instead of the model's own.",
    ),
]


@dataclass(frozen=True)
class EntrantFlags:
    """Which methods run, at which budgets, with which settings."""

    methods: Annotated[
        str,
        option(
            "--method",
            panel="Methods",
            metavar="A,B,C",
            help=f"Names that `omnidrop models` lists, two joined like uniform+omnidrop, or all "
            f"({METHODS}). The unpruned model always runs too.",
        ),
    ] = METHODS
    budgets: Annotated[
        Any,
        option(
            "--budget",
            "-b",
            panel="Methods",
            metavar="SHARES",
            parser=parse_budgets,
            help="Shares of audio and video tokens kept, mean over the layers "
            f"({','.join(map(str, BUDGETS))}).",
        ),
    ] = BUDGETS
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            panel="Methods",
            metavar="METHOD.NAME=VALUE",
            repeatable=True,
            help="A setting of one method; repeatable. Of two joined: "
            "uniform+omnidrop.layers.rows=last.",
        ),
    ] = None
    variants: Annotated[
        list[str] | None,
        option(
            "--variant",
            panel="Methods",
            metavar="LABEL=METHOD:NAME=VALUE,...",
            repeatable=True,
            help="A method, or a preset file, with settings of its own; repeatable. With budget=… "
            "it runs at that one alone, and another may have the label at the others.",
        ),
    ] = None
    presets: Annotated[
        list[str] | None,
        option(
            "--preset",
            panel="Methods",
            metavar="FILE",
            repeatable=True,
            help="Settings from `omnidrop calibrate`, under the file's name; repeatable.",
        ),
    ] = None
    baseline: Annotated[
        str | None,
        option(
            "--baseline",
            panel="Methods",
            metavar="A,B",
            help="Compare the others with these, question by question (unpruned,random).",
        ),
    ] = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the methods to run."""
        found = split_words(self.methods)
        if not found and not self.variants and not self.presets:
            raise UsageError("--method names no method.", hint=f"Say --method {METHODS}.")
        return found

    @property
    def every(self) -> bool:
        """Return whether all methods run."""
        return EVERY in split_words(self.methods)

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the budgets, largest first."""
        return tuple(sorted(self.budgets, reverse=True))

    @property
    def baselines(self) -> tuple[str, ...] | None:
        """Return the labels to compare with; None takes the usual ones."""
        if self.baseline is None:
            return None
        return tuple("unpruned" if word == "none" else word for word in split_words(self.baseline))

    def fields(self) -> dict[str, dict[str, Any]]:
        """Return the fields that --set gives, by method."""
        found: dict[str, dict[str, Any]] = {}
        for word in self.settings or ():
            target, equals, value = word.partition("=")
            method, dot, name = target.strip().partition(".")
            if not (equals and dot and method and name):
                raise UsageError(
                    f"--set {printable(word)!r} is not METHOD.NAME=VALUE.",
                    hint="Write it like omnidrop.diversity=0.",
                )
            if name == "budget":
                raise UsageError("--set ….budget=… is not needed.", hint="Use --budget.")
            found.setdefault(method, {})[setting_name(name)] = parse_value(value)
        return found

    def labelled(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return label, method and fields of each --preset and --variant."""
        from omnidrop.pruning.presets import read_preset

        found: list[tuple[str, str, dict[str, Any]]] = []
        for name in self.presets or ():
            preset = read_preset(Path(name))
            found.append((Path(name).stem, preset.method, dict(preset.fields)))
        for word in self.variants or ():
            label, equals, rest = word.partition("=")
            method, _, pairs = rest.partition(":")
            label, method = label.strip(), method.strip()
            if not (equals and label and method):
                raise UsageError(
                    f"--variant {printable(word)!r} is not LABEL=METHOD:NAME=VALUE,….",
                    hint="Write it like even=uniform+omnidrop:diversity=0.",
                )
            fields: dict[str, Any] = {}
            if method.endswith(".json"):
                preset = read_preset(Path(method))
                method, fields = preset.method, dict(preset.fields)
            for pair in split_values(pairs):
                name, equals, value = pair.partition("=")
                if not equals or not name.strip():
                    raise UsageError(
                        f"--variant {printable(label)}: {printable(pair)!r} is not NAME=VALUE."
                    )
                key = setting_name(name)
                fields[key] = parse_share(value) if key == "budget" else parse_value(value)
            found.append((label, method, fields))
        return found


@dataclass(frozen=True)
class SetFlags:
    """Which questions, and how they are asked."""

    videos: Videos = None
    limit: Limit = None
    score: Annotated[
        str,
        option(
            "--score",
            panel="Questions",
            metavar="HOW",
            help="text reads the reply (default); logits takes the most probable choice.",
        ),
    ] = "text"
    style: Style = None
    system: System = None
    max_new_tokens: Annotated[
        int, option("--max-new-tokens", panel="Questions", metavar="N", help="Longest reply (16).")
    ] = 16
    seed: Annotated[
        int,
        option(
            "--seed",
            panel="Questions",
            metavar="N",
            help=f"Seed of everything random ({GenerateOptions.seed}).",
        ),
    ] = GenerateOptions.seed
    seeds: Annotated[
        int,
        option(
            "--seeds",
            panel="Questions",
            metavar="N",
            help="Seeds that methods which draw at random answer with (1); tables have their mean "
            "and spread.",
        ),
    ] = 1
    anyway: Anyway = False

    def __post_init__(self) -> None:
        check_limit(self.limit)
        build(GenerateOptions, SetFlags, max_new_tokens=self.max_new_tokens, seed=self.seed)
        if self.seeds < 1:
            raise UsageError("--seeds must be 1 or more.", hint="Try --seeds 3.")

    def run_options(self, clip: ClipOptions) -> RunOptions:
        """Return how the library asks the questions."""
        from omnidrop.evaluation.runner import RunOptions

        return build(
            RunOptions,
            SetFlags,
            seed=self.seed,
            score=self.score,
            style=self.style,
            max_new_tokens=self.max_new_tokens,
            system=self.system,
            clip=clip,
            anyway=self.anyway,
            seeds=self.seeds,
        )


@dataclass(frozen=True)
class ResultFlags:
    """Where results go."""

    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            panel="Output",
            metavar="DIR",
            help="Folder of records, tables and figures; a call that was stopped continues there.",
        ),
    ] = None
    summary: Annotated[
        bool,
        option(
            "--summary",
            panel="Output",
            help="Ask nothing: summarise the records of the folders named instead of a SET.",
        ),
    ] = False
    latex: Annotated[
        Path | None,
        option(
            "--latex",
            panel="Output",
            metavar="FILE",
            help="Also write the tables to this .tex file, for booktabs.",
        ),
    ] = None
    force: Annotated[
        bool, option("--force", panel="Output", help="Let --latex replace a file.")
    ] = False
    json: Json = False
    quiet: Quiet = False
    debug: Debug = False

    def __post_init__(self) -> None:
        if self.latex is not None:
            check_target(self.latex, self.force)


def check_limit(limit: int | None) -> None:
    """Refuse a --limit below 1."""
    if limit is not None and limit < 1:
        raise UsageError("--limit must be 1 or more.", hint="It takes the first questions.")
