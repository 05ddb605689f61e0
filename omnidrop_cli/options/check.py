"""`--check`: the same question with every token kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from omnidrop_cli.options.groups import option


@dataclass(frozen=True)
class CheckFlags:
    """Whether the answer is compared with the unpruned model's."""

    check: Annotated[
        bool,
        option(
            "--check",
            panel="Token dropping",
            help="Also ask with every token kept, and say whether the answer is the same. The clip "
            "is not encoded again.",
        ),
    ] = False
