"""Options of `omnidrop report`: which rows, in which order, and where the report goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from omnidrop.errors import UsageError
from omnidrop.files import check_target
from omnidrop_cli.options.common import Debug, Json, Quiet
from omnidrop_cli.options.groups import option

if TYPE_CHECKING:
    from omnidrop.evaluation.report.conditions import Selection


@dataclass(frozen=True)
class ChooseFlags:
    """Which rows are shown, and how."""

    where: Annotated[
        list[str] | None,
        option(
            "--where",
            panel="Rows",
            metavar="CONDITION",
            repeatable=True,
            help="Only rows with this, like seconds>3, probability<0.5, right=no, answer~piano or "
            "a dotted name of the file's own; repeatable.",
        ),
    ] = None
    failed: Annotated[
        bool, option("--failed", panel="Rows", help="Only rows that failed, all of them listed.")
    ] = False
    clip: Annotated[
        str | None,
        option(
            "--clip",
            panel="Rows",
            metavar="GLOB",
            help="Only rows whose clip's path or name is like this, with * and ?.",
        ),
    ] = None
    question: Annotated[
        str | None,
        option(
            "--question",
            panel="Rows",
            metavar="TEXT",
            help="Only rows with this in the question, whatever the case.",
        ),
    ] = None
    slowest: Annotated[
        int | None,
        option("--slowest", panel="Rows", metavar="N", help="List the N slowest rows."),
    ] = None
    least_sure: Annotated[
        int | None,
        option(
            "--least-sure",
            panel="Rows",
            metavar="N",
            help="List the N answers of the lowest probability.",
        ),
    ] = None
    sort: Annotated[
        str | None,
        option(
            "--sort",
            panel="Rows",
            metavar="NAME",
            help="List rows by a value, like seconds or category; the largest first with a minus: "
            "--sort=-seconds.",
        ),
    ] = None
    rows: Annotated[
        int,
        option("--rows", panel="Rows", metavar="N", help="List at most N rows (50); 0 lists all."),
    ] = 50

    def __post_init__(self) -> None:
        for name, value in (("--slowest", self.slowest), ("--least-sure", self.least_sure)):
            if value is not None and value < 1:
                raise UsageError(f"{name} must be 1 or more, not {value}.")
        if self.rows < 0:
            raise UsageError(f"--rows must be 0 or more, not {self.rows}.")
        self.selection()

    def selection(self) -> Selection:
        """Return which rows are shown.

        Raises
        ------
        UsageError
            If a condition is none.
        """
        from omnidrop.evaluation.report.conditions import Condition, Selection

        try:
            where = tuple(Condition.parse(text) for text in self.where or ())
        except UsageError as problem:
            raise UsageError(f"--where: {problem.what}", hint=problem.hint) from None
        return Selection(where, self.failed, self.clip or "", self.question or "")

    @property
    def order(self) -> tuple[str, bool]:
        """Return the name to order by, empty for the order of the file, and whether it falls."""
        name = self.sort or ""
        return name.removeprefix("-"), name.startswith("-")


@dataclass(frozen=True)
class PageOutFlags:
    """Where the report goes."""

    save: Annotated[
        Path | None,
        option(
            "--save",
            panel="Output",
            metavar="FILE",
            help="Write the report as a page, FILE.html, whose rows can be searched and ordered.",
        ),
    ] = None
    pages: Annotated[
        Path | None,
        option(
            "--pages",
            panel="Output",
            metavar="DIR",
            help="Write a page for each clip that is shown, and link to it; those that are there "
            "stay. Pages that `ask --save` wrote into this folder are linked too.",
        ),
    ] = None
    force: Annotated[
        bool, option("--force", panel="Output", help="Let --save and --pages replace files.")
    ] = False
    json: Json = False
    quiet: Quiet = False
    debug: Debug = False

    def __post_init__(self) -> None:
        if self.save is not None:
            if self.save.suffix.lower() != ".html":
                raise UsageError(
                    "--save writes a page.", path=self.save, hint="Give it the suffix .html."
                )
            check_target(self.save, self.force)
        if self.pages is not None and self.pages.exists() and not self.pages.is_dir():
            raise UsageError("--pages is a file.", path=self.pages, hint="Name a folder.")
