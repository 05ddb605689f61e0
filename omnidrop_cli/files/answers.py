"""Answers and reports as files: JSON, HTML, SVG or plain text, by suffix.

A file is written whole or not at all, and an existing one is kept unless `--force` is given.
`omnidrop_cli.page` makes the HTML.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.files import to_json, write_whole

if TYPE_CHECKING:
    from omnidrop_cli.commands.answering import Outcome
    from omnidrop_cli.terminal.answer import Layout

TEXT_WIDTH = 100


def save(
    path: Path,
    outcomes: list[Outcome],
    *,
    alone: bool,
    force: bool,
    embed: bool = False,
    notify: Callable[[str], None] = lambda notice: None,
) -> None:
    """Write `outcomes` to `path` in the format of its suffix.

    Parameters
    ----------
    path : Path
    outcomes : list of Outcome
    alone : bool
        Whether one question about one clip was asked.
    force : bool
        Replace an existing file.
    embed : bool
        Put the clips themselves into an HTML page.
    notify : callable
        Receives what the user should know about clips that a page cannot show.

    Raises
    ------
    UsageError
        If the file has appeared since the check, or the disk refuses it.
    """
    from omnidrop_cli.files.stdout import document

    suffix = path.suffix.lower()
    if suffix == ".json":
        text = to_json(document(outcomes, alone), indent=2) + "\n"
    elif suffix == ".html":
        from omnidrop_cli.page.answers import answers_page

        data = document(outcomes, alone)
        text = answers_page(outcomes, path, data, embed=embed, notify=notify)
    else:
        text = _report(suffix, outcomes)
    write_whole(path, text, force)


def _report(suffix: str, outcomes: list[Outcome]) -> str:
    from omnidrop_cli.files.svg import to_svg
    from omnidrop_cli.page.answers import title
    from omnidrop_cli.terminal.console import SAVED_WIDTH, recorder

    if suffix == ".txt":
        console = recorder(colour=False, width=TEXT_WIDTH)
        texts = (
            "".join(segment.text for segment in line).rstrip()
            for outcome in outcomes
            for line in console.render_lines(_layout(outcome), pad=False)
        )
        return "\n".join(texts).strip("\n") + "\n"
    console = recorder(colour=True)
    drawn = [console.render_lines(_layout(outcome), pad=False) for outcome in outcomes]
    return to_svg([line for lines in drawn for line in lines], SAVED_WIDTH, title(outcomes))


def _layout(outcome: Outcome) -> Layout:
    from omnidrop_cli.terminal.answer import failed, full

    if outcome.answer is None:
        return failed(outcome)
    return full(outcome.answer, with_answer=True)
