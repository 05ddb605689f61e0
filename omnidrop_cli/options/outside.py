"""The option that asks what a model's files say it does not know."""

from __future__ import annotations

from typing import Annotated

from omnidrop_cli.options.groups import option

Anyway = Annotated[
    bool,
    option(
        "--anyway",
        panel="Question",
        help="Ask also what the model does not know; its answer is a guess.",
    ),
]
