"""`--thoughts`: what a thinking model thought before it answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from omnidrop_cli.options.groups import option


@dataclass(frozen=True)
class ThoughtFlags:
    """Whether thoughts are shown."""

    thoughts: Annotated[
        bool,
        option(
            "--thoughts",
            panel="Output",
            help="Show on stderr what a thinking model thought before it answered; JSON always "
            "has it, as thinking.",
        ),
    ] = False
