"""What `omnidrop eval` is asked: which methods, which questions, where results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.groups import lines_of, option
from omnidrop_cli.options.parsing import check_seed, parse_shares, parse_value

METHODS = "omnidrop,random,uniform"
BUDGETS = "0.5,0.3,0.2,0.1"
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
        help="letters lists the choices as A, B, …; plain asks the question as it is. Default: "
        "what the set means.",
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
            help=f"Names that `omnidrop models` lists, or all ({METHODS}). The unpruned model "
            "always runs too.",
        ),
    ] = METHODS
    budgets: Annotated[
        str,
        option(
            "--budget",
            "-b",
            panel="Methods",
            metavar="SHARES",
            help=f"Shares of audio and video tokens kept, mean over the layers ({BUDGETS}).",
        ),
    ] = BUDGETS
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            panel="Methods",
            metavar="METHOD.NAME=VALUE",
            envvar=None,
            help="A setting of one method; repeatable.",
        ),
    ] = None
    variants: Annotated[
        list[str] | None,
        option(
            "--variant",
            panel="Methods",
            metavar="LABEL=METHOD:NAME=VALUE,...",
            envvar=None,
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
            envvar=None,
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
        found = words(self.methods)
        if not found and not self.variant_words and not self.presets:
            raise UsageError("--method names no method.", hint=f"Say --method {METHODS}.")
        return found

    @property
    def every(self) -> bool:
        """Return whether all methods run."""
        return EVERY in words(self.methods)

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the budgets, largest first."""
        return tuple(sorted(parse_shares(words(self.budgets), self.budgets), reverse=True))

    @property
    def baselines(self) -> tuple[str, ...] | None:
        """Return the labels to compare with; None takes the usual ones."""
        if self.baseline is None:
            return None
        return tuple("unpruned" if word == "none" else word for word in words(self.baseline))

    @property
    def variant_words(self) -> tuple[str, ...]:
        """Return the --variant words."""
        return tuple(self.variants or ()) or lines_of("OMNIDROP_VARIANT")

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
            found.setdefault(method, {})[name.replace("-", "_")] = parse_value(value)
        return found

    def labelled(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return label, method and fields of each --preset and --variant."""
        from omnidrop.pruning.presets import read_preset

        found: list[tuple[str, str, dict[str, Any]]] = []
        for name in self.presets or ():
            preset = read_preset(Path(name))
            found.append((Path(name).stem, preset.method, dict(preset.fields)))
        for word in self.variant_words:
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
            for pair in split(pairs):
                name, equals, value = pair.partition("=")
                if not equals or not name.strip():
                    raise UsageError(
                        f"--variant {printable(label)}: {printable(pair)!r} is not NAME=VALUE."
                    )
                fields[name.strip().replace("-", "_")] = parse_value(value)
            found.append((label, method, fields))
        return found


@dataclass(frozen=True)
class SetFlags:
    """Which questions, and how they are put."""

    videos: Videos = None
    limit: Limit = None
    score: Annotated[
        str,
        option(
            "--score",
            panel="Questions",
            metavar="HOW",
            help="text reads the reply (default); logits takes the likeliest choice.",
        ),
    ] = "text"
    style: Style = None
    system: System = None
    max_new_tokens: Annotated[
        int, option("--max-new-tokens", panel="Questions", metavar="N", help="Longest reply (16).")
    ] = 16
    seed: Annotated[
        int, option("--seed", panel="Questions", metavar="N", help="Seed of everything random (0).")
    ] = 0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError("--limit must be 1 or more.", hint="It takes the first questions.")
        if self.score not in ("text", "logits"):
            raise UsageError(f"--score {printable(self.score)!r} is unknown.", hint="text, logits.")
        check_style(self.style)
        if self.max_new_tokens < 1:
            raise UsageError("--max-new-tokens must be 1 or more.", hint="The default is 16.")
        check_seed(self.seed)


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
            help="Folder of records, tables and figures; taken up again where it was left.",
        ),
    ] = None
    summary: Annotated[
        bool,
        option(
            "--summary",
            panel="Output",
            help="Ask nothing: add up the records of the folders named instead of a SET.",
        ),
    ] = False
    json: Annotated[bool, option("--json", panel="Output", help="The summary as JSON.")] = False
    quiet: Annotated[bool, option("--quiet", panel="Output", help="No progress.")] = False
    debug: Annotated[
        bool, option("--debug", panel="Output", help="Show tracebacks and library warnings.")
    ] = False


def check_style(style: str | None) -> None:
    """Refuse a --style that there is not."""
    if style not in (None, "plain", "letters"):
        raise UsageError(f"--style {printable(style)!r} is unknown.", hint="plain, letters.")


def words(text: str) -> tuple[str, ...]:
    """Return the words of `a, b,c`, each once."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def split(text: str) -> list[str]:
    """Split at commas that are not inside brackets or quotes."""
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "[{") - (letter in "]}")
        if letter == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]
