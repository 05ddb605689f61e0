"""Options of `omnidrop profile` and `omnidrop estimate`: runs to compare, rounds, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from omnidrop.errors import UsageError, printable
from omnidrop.options import DEFAULT_BUDGET, GenerateOptions
from omnidrop.recommended import Recommended
from omnidrop_cli.options.common import Debug
from omnidrop_cli.options.groups import build, option
from omnidrop_cli.options.parsing import parse_budgets, parse_size, split_words, with_suffix
from omnidrop_cli.options.pruning import DropFlags

SWEEP = (0.7, 0.5, 0.3, 0.2, 0.1)
#: What is asked where nothing is; the demo model, too, knows all of its words.
QUESTION = "What do you see and hear in the clip?"
SAVED = (".json", ".html", ".txt", ".png", ".svg")
OVERLAYS = (".mp4", ".mkv", ".mov")


def parse_target(text: Any) -> Path:
    """Return a file that a profile is saved to; its suffix is the format."""
    return with_suffix(text, "--save", SAVED)


def parse_overlay(text: Any) -> Path:
    """Return the file that the overlay is written to; its suffix is the container."""
    return with_suffix(text, "--overlay", OVERLAYS)


@dataclass(frozen=True)
class CompareFlags:
    """Which runs are compared with the unpruned control."""

    budgets: Annotated[
        Any,
        option(
            "--budget",
            "-b",
            panel="Token dropping",
            metavar="SHARES",
            parser=parse_budgets,
            help="Shares of audio and video tokens kept, mean over the layers: .5,.3,.2. Default: "
            f"the model's own, see `omnidrop models`; with --method {DEFAULT_BUDGET}.",
        ),
    ] = None
    methods: Annotated[
        str | None,
        option(
            "--method",
            panel="Token dropping",
            metavar="NAMES",
            help="Methods to measure: omnidrop,fastv; see `omnidrop models`. Two can be joined: "
            "uniform+omnidrop. Default: the model's own.",
        ),
    ] = None
    presets: Annotated[
        list[str] | None,
        option(
            "--preset",
            panel="Token dropping",
            metavar="NAME",
            repeatable=True,
            help="A published setting, or a file from `omnidrop calibrate`; repeatable.",
        ),
    ] = None
    sweep: Annotated[
        bool,
        option(
            "--sweep",
            panel="Token dropping",
            help=f"Measure the budgets {', '.join(f'{b:g}' for b in SWEEP)}.",
        ),
    ] = False
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            panel="Token dropping",
            metavar="NAME=VALUE",
            repeatable=True,
            help="A setting of every method measured; repeatable.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.sweep and self.budgets is not None:
            raise UsageError("--sweep has budgets of its own.", hint="Drop it or --budget.")
        if self.methods is not None and not self.names:
            raise UsageError(
                f"--method {printable(str(self.methods))!r} does not name methods.",
                hint="Separate names by commas, like omnidrop,fastv.",
            )

    @property
    def names(self) -> tuple[str | None, ...]:
        """Return the methods to measure, each once; None is the model's own."""
        if self.methods is None:
            return () if self.presets else (None,)
        return split_words(self.methods)

    def drops(self, recommended: Recommended) -> tuple[DropFlags, ...]:
        """Return the flags of each run: every method at every budget, "none" left out."""
        usual = recommended.budget if self.names == (None,) else DEFAULT_BUDGET
        budgets = SWEEP if self.sweep else self.budgets or (usual,)
        settings = list(self.settings or ()) or None
        found = [
            DropFlags(budget=budget, method=name, settings=settings)
            for name in self.names
            if name != "none"
            for budget in budgets
        ]
        for name in self.presets or ():
            own = DropFlags(preset=name, settings=settings)
            at = budgets if own.preset_file is not None else ()
            found += [replace(own, budget=budget) for budget in at] or [own]
        return tuple(found)


def labels_of(drops: Sequence[DropFlags], recommended: Recommended) -> list[str]:
    """Return the labels of the runs: "omnidrop 0.2", or a preset's name."""
    from omnidrop.profiling.result import unique_labels

    found = []
    for drop in drops:
        name = drop.method or recommended.method
        name = name if drop.preset is None else Path(drop.preset).name
        name = str(name).removesuffix(".json")
        found.append(name if drop.budget is None else f"{name} {drop.budget:g}")
    return unique_labels(found)


@dataclass(frozen=True)
class RoundFlags:
    """How many rounds, and how long the answers."""

    repeats: Annotated[
        int, option("--repeats", panel="Measuring", metavar="N", help="Timed rounds (5).")
    ] = 5
    warmup: Annotated[
        int, option("--warmup", panel="Measuring", metavar="N", help="Rounds before them (1).")
    ] = 1
    max_new_tokens: Annotated[
        int, option("--max-new-tokens", panel="Measuring", metavar="N", help="Longest answer (32).")
    ] = 32
    system: Annotated[
        str | None,
        option(
            "--system",
            panel="Measuring",
            metavar="TEXT",
            help="System prompt instead of the model's own.",
        ),
    ] = None
    seed: Annotated[
        int,
        option(
            "--seed",
            panel="Measuring",
            metavar="N",
            help=f"Seed of methods that draw ({GenerateOptions.seed}).",
        ),
    ] = GenerateOptions.seed

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError("--repeats must be 1 or more.", hint="The default is 5.")
        if self.warmup < 0:
            raise UsageError("--warmup must be 0 or more.", hint="The default is 1.")
        self.generate()

    def generate(self) -> GenerateOptions:
        """Return how the library makes the answers."""
        return build(
            GenerateOptions, RoundFlags, max_new_tokens=self.max_new_tokens, seed=self.seed
        )


@dataclass(frozen=True)
class EstimateFlags:
    """What an estimate assumes."""

    tflops: Annotated[
        float | None,
        option(
            "--tflops",
            panel="Estimate",
            metavar="N",
            help="Speed of the machine to estimate for, in TFLOP/s; by default this one is timed.",
        ),
    ] = None
    memory: Annotated[
        float | None,
        option(
            "--memory",
            panel="Estimate",
            metavar="SIZE",
            parser=parse_size,
            help="Memory of a GPU, like 24GB: whether it would take this, and what would make it.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.tflops is not None and not 1e-6 <= self.tflops <= 1e9:
            raise UsageError(
                "--tflops must be above 0, and at most a billion.",
                hint="An H100 does about 400 in bf16.",
            )


@dataclass(frozen=True)
class FileFlags:
    """Where the report goes."""

    json: Annotated[
        bool, option("--json", panel="Output", help="One JSON document on stdout, no report.")
    ] = False
    save: Annotated[
        list[Path] | None,
        option(
            "--save",
            panel="Output",
            metavar="FILE",
            parser=parse_target,
            repeatable=True,
            help="Write FILE.json, .html or .txt, or figures: .png, .svg; repeatable.",
        ),
    ] = None
    force: Annotated[
        bool, option("--force", panel="Output", help="Let --save and --overlay replace files.")
    ] = False
    quiet: Annotated[
        bool, option("--quiet", panel="Output", help="No report, progress or notices.")
    ] = False
    debug: Debug = False

    @property
    def targets(self) -> tuple[Path, ...]:
        """Return the files to write, each once."""
        return tuple(dict.fromkeys(self.save or ()))


@dataclass(frozen=True)
class OverlayFlags:
    """Which kept tokens are shown on the clip."""

    overlay: Annotated[
        Path | None,
        option(
            "--overlay",
            panel="Output",
            metavar="FILE",
            parser=parse_overlay,
            help="Write the clip with dropped patches dimmed to FILE.mp4, audio included.",
        ),
    ] = None
    layer: Annotated[
        int | None,
        option(
            "--layer",
            panel="Output",
            metavar="N",
            help="Layer whose kept tokens the contact sheet and the overlay show; by default the "
            "first with at most half of those that entered the first layer.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.layer is not None and self.layer < 0:
            raise UsageError("--layer counts from 0.", hint="Give 0 for the first layer.")
