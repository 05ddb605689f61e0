"""Options of `omnidrop calibrate`: what to try, on which questions, where the preset goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omnidrop.errors import UsageError, printable
from omnidrop.files import check_target
from omnidrop.options import DEFAULT_BUDGET, GenerateOptions
from omnidrop.recommended import Recommended
from omnidrop_cli.options.common import Debug, Json, Quiet
from omnidrop_cli.options.eval import Limit, Style, System, Videos, check_limit
from omnidrop_cli.options.groups import build, option
from omnidrop_cli.options.outside import Anyway
from omnidrop_cli.options.parsing import (
    parse_budgets,
    parse_share,
    parse_value,
    setting_name,
    split_values,
)

if TYPE_CHECKING:
    from omnidrop.clip.options import ClipOptions
    from omnidrop.evaluation.calibrate.search import Search
    from omnidrop.evaluation.runner import RunOptions


@dataclass(frozen=True)
class TryFlags:
    """Which settings are tried, and how many."""

    method: Annotated[
        str | None,
        option(
            "--method",
            panel="Search",
            metavar="NAME",
            help="The method to calibrate; see `omnidrop models`. Also two, like "
            "uniform+omnidrop. Default: the model's own.",
        ),
    ] = None
    budgets: Annotated[
        Any,
        option(
            "--budget",
            "-b",
            panel="Search",
            metavar="SHARES",
            parser=parse_budgets,
            help="Share of audio and video tokens kept; of several, one setting for all. Default: "
            f"the model's own, see `omnidrop models`; with --method {DEFAULT_BUDGET}.",
        ),
    ] = None
    values: Annotated[
        list[str] | None,
        option(
            "--try",
            panel="Search",
            metavar="NAME=A,B,C",
            repeatable=True,
            help="Values to try for a setting, besides the usual ones; repeatable.",
        ),
    ] = None
    only: Annotated[
        bool, option("--only", panel="Search", help="Try nothing but what --try names.")
    ] = False
    candidates: Annotated[
        int,
        option(
            "--candidates", panel="Search", metavar="N", help="Settings drawn at the start (24)."
        ),
    ] = 24
    held_out: Annotated[
        float,
        option(
            "--held-out",
            panel="Search",
            metavar="SHARE",
            parser=parse_share,
            help="Share of the clips that check the winner and choose nothing (0.4).",
        ),
    ] = 0.4
    price: Annotated[
        float,
        option(
            "--price",
            panel="Search",
            metavar="P",
            help="Accuracy that all FLOPs of an unpruned prefill are worth (0.1).",
        ),
    ] = 0.1

    evidence: Annotated[
        bool,
        option(
            "--evidence",
            panel="Search",
            help="Search for the attention that tells where answers came from, in place of "
            "settings: SET then says when the evidence of its questions is.",
        ),
    ] = False

    def __post_init__(self) -> None:
        if self.evidence and (self.values or self.only):
            raise UsageError(
                "--evidence searches for no settings; --try and --only are about those.",
                hint="Call calibrate twice.",
            )
        if self.only and not self.values:
            raise UsageError("--only leaves nothing to try.", hint="Add --try NAME=VALUE,VALUE.")

    def for_model(self, recommended: Recommended) -> tuple[str, tuple[float, ...]]:
        """Return method and budgets; the model's own where none are named."""
        usual = recommended.budget if self.method is None else DEFAULT_BUDGET
        return self.method or recommended.method, tuple(self.budgets or (usual,))

    def search(self, budgets: tuple[float, ...], seed: int) -> Search:
        """Return how the library searches."""
        from omnidrop.evaluation.calibrate.search import Search

        return build(
            Search,
            TryFlags,
            budgets=budgets,
            candidates=self.candidates,
            held_out=self.held_out,
            price=self.price,
            seed=seed,
        )

    def ranges(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that --try gives, by setting."""
        found: dict[str, tuple[Any, ...]] = {}
        for word in self.values or ():
            name, equals, rest = word.partition("=")
            values = tuple(parse_value(part) for part in split_values(rest))
            if not equals or not name.strip() or not values:
                raise UsageError(
                    f"--try {printable(word)!r} is not NAME=VALUE,VALUE.",
                    hint="Write it like t_mid=0.3,0.4,0.5.",
                )
            found[setting_name(name)] = values
        return found


@dataclass(frozen=True)
class AskFlags:
    """Which questions, and how they are asked."""

    videos: Videos = None
    limit: Limit = None
    style: Style = None
    system: System = None
    seed: Annotated[
        int,
        option(
            "--seed",
            panel="Questions",
            metavar="N",
            help=f"Seed of the split, the draw and the methods ({GenerateOptions.seed}).",
        ),
    ] = GenerateOptions.seed
    anyway: Anyway = False

    def __post_init__(self) -> None:
        check_limit(self.limit)
        build(GenerateOptions, AskFlags, seed=self.seed)

    def run_options(self, clip: ClipOptions) -> RunOptions:
        """Return how the library asks the questions."""
        from omnidrop.evaluation.runner import RunOptions

        return build(
            RunOptions,
            AskFlags,
            seed=self.seed,
            style=self.style,
            system=self.system,
            clip=clip,
            anyway=self.anyway,
        )


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
            help="The preset, a .json file. Every result is added to FILE.trials.jsonl, "
            "and a call that was stopped continues from there.",
        ),
    ] = None
    force: Annotated[bool, option("--force", panel="Output", help="Replace a preset.")] = False
    dry_run: Annotated[
        bool, option("--dry-run", panel="Output", help="Show what would be tried; ask nothing.")
    ] = False
    json: Json = False
    quiet: Quiet = False
    debug: Debug = False

    def __post_init__(self) -> None:
        if self.out is None:
            return
        if self.out.suffix.lower() != ".json":
            raise UsageError("A preset is a .json file.", path=self.out, hint="End --out in .json.")
        check_target(self.out, self.force or self.dry_run)
