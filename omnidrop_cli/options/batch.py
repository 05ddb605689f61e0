"""Options of `omnidrop batch`: its input, its output, and how the run goes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.common import Recursive
from omnidrop_cli.options.groups import option
from omnidrop_cli.options.parsing import parse_duration, split_words

PANEL = "Run"


def parse_shard(text: Any) -> tuple[int, int]:
    """Return number and count of `2/4`."""
    if isinstance(text, tuple):
        return text
    found = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", str(text), re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f"{printable(text)!r} is no part of the rows.",
            hint="Write it like 1/4, up to 4/4.",
        )
    return int(found[1]), int(found[2])


def parse_fields(text: Any) -> tuple[str, ...]:
    """Return the names of `id,answer,probability`."""
    return tuple(text) if isinstance(text, tuple) else split_words(text)


@dataclass(frozen=True)
class SourceFlags:
    """What is asked of which clips."""

    question: Annotated[
        list[str] | None,
        option(
            "--question",
            "-q",
            panel="Question",
            repeatable=True,
            metavar="TEXT",
            help="Asked of every clip, or of every row without a question; repeatable.",
        ),
    ] = None
    recursive: Recursive = False
    limit: Annotated[
        int | None,
        option("--limit", panel="Question", metavar="N", help="Take the first N rows only."),
    ] = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError("--limit must be 1 or more.", hint="Leave it out for every row.")


@dataclass(frozen=True)
class AnswersFlags:
    """Where the answers go, and what is written of them."""

    copy: Annotated[
        list[Path] | None,
        option(
            "--copy",
            panel="Output",
            metavar="FILE",
            repeatable=True,
            help="At the end, write all answers as a table too: FILE.csv, .tsv or .parquet.",
        ),
    ] = None
    fields: Annotated[
        Any,
        option(
            "--fields",
            panel="Output",
            metavar="A,B,C",
            parser=parse_fields,
            help="What a line holds besides id and error: see docs/batch.md; all is the whole "
            "document of `omnidrop ask --json`.",
        ),
    ] = None
    quiet: Annotated[
        bool, option("--quiet", panel="Output", help="No progress and no summary.")
    ] = False


@dataclass(frozen=True)
class RunFlags:
    """How the run goes."""

    retry: Annotated[
        int,
        option(
            "--retry",
            panel=PANEL,
            metavar="N",
            help="Ask rows again that failed: up to N times in this run where it may help, and "
            "those that failed in an earlier one.",
        ),
    ] = 0
    timeout: Annotated[
        float | None,
        option(
            "--timeout",
            panel=PANEL,
            metavar="TIME",
            parser=parse_duration,
            help="Most time for a row, reading included, like 60s; it has failed then.",
        ),
    ] = None
    fail_fast: Annotated[
        bool, option("--fail-fast", panel=PANEL, help="End the run at the first row that fails.")
    ] = False
    shard: Annotated[
        Any,
        option(
            "--shard",
            panel=PANEL,
            metavar="I/N",
            parser=parse_shard,
            help="Ask only the I-th of N parts of the clips, into a file of its own.",
        ),
    ] = None
    workers: Annotated[
        int | None,
        option(
            "--workers",
            panel=PANEL,
            metavar="N",
            help="Processes that answer, each with a model of its own. Default: one per GPU.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.retry < 0:
            raise UsageError("--retry must be 0 or more.", hint="1 asks failed rows once more.")
        if self.workers is not None and not 1 <= self.workers <= 64:
            raise UsageError("--workers must be between 1 and 64.", hint="1 is this process.")
