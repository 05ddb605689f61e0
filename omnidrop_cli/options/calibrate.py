"""What `omnidrop calibrate` is asked: what to try, on which questions, where the preset goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.eval import Limit, Style, System, Videos, check_style, split, words
from omnidrop_cli.options.groups import lines_of, option
from omnidrop_cli.options.parsing import check_seed, parse_shares, parse_value


@dataclass(frozen=True)
class TryFlags:
    """Which settings are tried, and how many."""

    method: Annotated[
        str,
        option(
            "--method",
            panel="Search",
            metavar="NAME",
            help="The method to calibrate (omnidrop); see `omnidrop models`.",
        ),
    ] = "omnidrop"
    budgets: Annotated[
        str,
        option(
            "--budget",
            "-b",
            panel="Search",
            metavar="SHARES",
            help="Share of audio and video tokens kept; of several, one setting for all (0.3).",
        ),
    ] = "0.3"
    values: Annotated[
        list[str] | None,
        option(
            "--try",
            panel="Search",
            metavar="NAME=A,B,C",
            envvar=None,
            help="Values to try for a setting, besides the usual ones; repeatable.",
        ),
    ] = None
    only: Annotated[
        bool, option("--only", panel="Search", help="Try nothing but what --try names.")
    ] = False
    candidates: Annotated[
        int, option("--candidates", panel="Search", metavar="N", help="Settings drawn first (24).")
    ] = 24
    held_out: Annotated[
        float,
        option(
            "--held-out",
            panel="Search",
            metavar="SHARE",
            help="Share of the clips that the winner is checked on and nothing is chosen by (0.4).",
        ),
    ] = 0.4
    price: Annotated[
        float,
        option(
            "--price",
            panel="Search",
            metavar="P",
            help="What all FLOPs of an unpruned prefill are worth, as a share of right answers "
            "(0.1).",
        ),
    ] = 0.1

    def __post_init__(self) -> None:
        if self.only and not self.value_words:
            raise UsageError("--only leaves nothing to try.", hint="Add --try NAME=VALUE,VALUE.")

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the budgets, each once."""
        return parse_shares(words(self.budgets), self.budgets, like="0.3,0.2")

    @property
    def value_words(self) -> tuple[str, ...]:
        """Return the --try words."""
        return tuple(self.values or ()) or lines_of("OMNIDROP_TRY")

    def ranges(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that --try gives, by setting."""
        found: dict[str, tuple[Any, ...]] = {}
        for word in self.value_words:
            name, equals, rest = word.partition("=")
            values = tuple(parse_value(part) for part in split(rest))
            if not equals or not name.strip() or not values:
                raise UsageError(
                    f"--try {printable(word)!r} is not NAME=VALUE,VALUE.",
                    hint="Write it like t_mid=0.3,0.4,0.5.",
                )
            found[name.strip().replace("-", "_")] = values
        return found


@dataclass(frozen=True)
class AskFlags:
    """Which questions, and how they are put."""

    videos: Videos = None
    limit: Limit = None
    style: Style = None
    system: System = None
    seed: Annotated[
        int,
        option("--seed", panel="Questions", metavar="N", help="Seed of split, draw and all (0)."),
    ] = 0

    def __post_init__(self) -> None:
        check_style(self.style)
        check_seed(self.seed)


@dataclass(frozen=True)
class PresetFlags:
    """Where the preset goes."""

    out: Annotated[
        Path | None,
        option(
            "--out",
            "-o",
            panel="Output",
            metavar="FILE",
            help="The preset, a .json file. What was asked stands in FILE.trials.jsonl beside it, "
            "and a call that was stopped goes on there.",
        ),
    ] = None
    force: Annotated[bool, option("--force", panel="Output", help="Replace a preset.")] = False
    dry_run: Annotated[
        bool, option("--dry-run", panel="Output", help="Say what would be tried; ask nothing.")
    ] = False
    json: Annotated[bool, option("--json", panel="Output", help="The result as JSON.")] = False
    quiet: Annotated[bool, option("--quiet", panel="Output", help="No progress.")] = False
    debug: Annotated[
        bool, option("--debug", panel="Output", help="Show tracebacks and library warnings.")
    ] = False

    def __post_init__(self) -> None:
        if self.out is None:
            return
        if self.out.suffix.lower() != ".json":
            raise UsageError("A preset is a .json file.", path=self.out, hint="End --out in .json.")
        from omnidrop_cli.files.answers import check_target

        check_target(self.out, self.force or self.dry_run)
