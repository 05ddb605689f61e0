"""Options of `omnidrop chat` alone: what a question sees, and where answers go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from omnidrop.files import check_target
from omnidrop_cli.options.common import Debug, Quiet
from omnidrop_cli.options.groups import option
from omnidrop_cli.options.parsing import parse_save


@dataclass(frozen=True)
class ChatFlags:
    """How the session is held."""

    alone: Annotated[
        bool,
        option(
            "--alone",
            panel="Session",
            help="Let no question see the turns before it; /turns on changes that.",
        ),
    ] = False
    no_history: Annotated[
        bool,
        option(
            "--no-history",
            panel="Session",
            help="Neither read nor write the file of typed lines.",
        ),
    ] = False
    jsonl: Annotated[
        bool, option("--jsonl", panel="Output", help="One line of JSON per answer on stdout.")
    ] = False
    save: Annotated[
        Path | None,
        option(
            "--save",
            panel="Output",
            metavar="FILE",
            parser=parse_save,
            help="At the end, write all answers to FILE.json, .html, .svg or .txt.",
        ),
    ] = None
    force: Annotated[bool, option("--force", panel="Output", help="Let --save replace a file.")] = (
        False
    )
    quiet: Quiet = False
    debug: Debug = False

    def __post_init__(self) -> None:
        if self.save is not None:
            check_target(self.save, self.force)
