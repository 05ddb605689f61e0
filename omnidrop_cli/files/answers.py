"""Answers and reports as files: JSON, HTML, SVG or plain text, by suffix.

A file is written whole or not at all, and an existing one is kept unless `--force` is given. Saved
pages load nothing from the network.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.files import plain, to_json, write_whole

if TYPE_CHECKING:
    from omnidrop_cli.commands.answering import Outcome
    from omnidrop_cli.terminal.answer import Layout

TEXT_WIDTH = 100

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ background: #14161b; color: #d8dbe2; margin: 2rem; font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.2rem; font-weight: normal; margin: 0 1rem; opacity: .75; }}
p {{ font-size: 1.5rem; margin: .2rem 1rem 1rem; white-space: pre-wrap; max-width: 60rem; }}
svg, img {{ max-width: 100%; height: auto; display: block; margin-bottom: 2rem; }}
@media print {{ body {{ margin: 0; color: #111; background: #fff; }} }}
</style>
</head>
<body>
{body}
<script type="application/json" id="{name}">{data}</script>
</body>
</html>
"""


def save(path: Path, outcomes: list[Outcome], *, alone: bool, force: bool) -> None:
    """Write `outcomes` to `path` in the format of its suffix.

    Raises
    ------
    UsageError
        If the file has appeared since the check, or the disk refuses it.
    """
    from omnidrop_cli.files.stdout import document

    suffix = path.suffix.lower()
    if suffix == ".json":
        text = to_json(document(outcomes, alone), indent=2) + "\n"
    else:
        text = _report(suffix, outcomes, to_json(document(outcomes, alone)))
    write_whole(path, text, force)


def _report(suffix: str, outcomes: list[Outcome], data: str) -> str:
    from omnidrop_cli.files.svg import to_svg
    from omnidrop_cli.terminal.console import SAVED_WIDTH, recorder

    title = _title(outcomes)
    if suffix == ".txt":
        console = recorder(colour=False, width=TEXT_WIDTH)
        texts = (
            "".join(segment.text for segment in line).rstrip()
            for outcome in outcomes
            for line in console.render_lines(_layout(outcome), pad=False)
        )
        return "\n".join(texts).strip("\n") + "\n"
    console = recorder(colour=True)
    in_drawing = suffix == ".svg"  # a page has the answer above the drawing
    drawn = [
        console.render_lines(_layout(o, in_drawing, settings=not in_drawing), pad=False)
        for o in outcomes
    ]
    if suffix == ".svg":
        return to_svg([line for lines in drawn for line in lines], SAVED_WIDTH, title)
    parts = []
    for outcome, lines in zip(outcomes, drawn, strict=True):
        text = outcome.answer.text if outcome.answer is not None else outcome.failure()["error"]
        parts.append(f"<h1>{html.escape(plain(outcome.question.text))}</h1>")
        parts.append(f"<p>{html.escape(plain(text))}</p>")
        parts.append(to_svg(lines, SAVED_WIDTH, plain(outcome.question.text)))
    return page(title, parts, data, "answers")


def page(title: str, parts: list[str], data: str, name: str) -> str:
    """Return a page that needs no other file: parts of HTML, and JSON text under the id `name`."""
    # `</` and `<!--` inside a script element would end it.
    return PAGE.format(
        title=html.escape(title),
        body="\n".join(parts),
        data=data.replace("<", "\\u003c"),
        name=name,
    )


def _layout(outcome: Outcome, with_answer: bool = True, settings: bool = False) -> Layout:
    from omnidrop_cli.terminal.answer import failed, full

    if outcome.answer is None:
        return failed(outcome)
    return full(outcome.answer, with_answer=with_answer, settings=settings)


def _title(outcomes: list[Outcome]) -> str:
    first = plain(outcomes[0].question.text)
    more = f" and {len(outcomes) - 1} more" if len(outcomes) > 1 else ""
    return f"{first}{more} · omnidrop"
