"""Answers and reports as files: JSON, HTML, SVG or plain text, by suffix.

A file is written whole or not at all, and an existing one is kept unless `--force` is given. Saved
pages load nothing from anywhere.
"""

from __future__ import annotations

import html
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from omnidrop.errors import UsageError

if TYPE_CHECKING:
    from omnidrop_cli.work import Outcome

#: 1.25 is where block glyphs of common monospaced fonts join without overlapping.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ background: #14161b; color: #d8dbe2; margin: 2rem; }}
pre {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace;
  font-size: 13px; line-height: 1.17; font-variant-ligatures: none; overflow-x: auto; }}
@media print {{ body {{ margin: 0; }} pre {{ font-size: 8px; }} }}
</style>
</head>
<body>
<pre>{code}</pre>
<script type="application/json" id="answers">{data}</script>
</body>
</html>
"""

DRAWING = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" \
xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", \
monospace; font-size: {char_height}px; line-height: {line_height}px; white-space: pre; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
<rect width="100%" height="100%" fill="#14161b"/>
<g transform="translate(10, 10)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def check_target(path: Path, force: bool) -> None:
    """Raise UsageError now if `path` could not be written later."""
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(
            "The folder to save in does not exist.", path=folder, hint="Make it, or save elsewhere."
        )
    if path.is_dir():
        raise UsageError("This is a folder.", path=path, hint="Give --save a file name.")
    if path.exists() and not force:
        raise UsageError(
            "The file to save exists.", path=path, hint="Add --force to replace it."
        )
    if not os.access(folder, os.W_OK):
        raise UsageError("The folder to save in cannot be written.", path=folder)


def save(path: Path, outcomes: list[Outcome], *, alone: bool, force: bool) -> None:
    """Write `outcomes` to `path` in the format of its suffix.

    Raises
    ------
    UsageError
        If the file has appeared since the check, or the disk refuses it.
    """
    from omnidrop_cli.out import document, to_json

    suffix = path.suffix.lower()
    if suffix == ".json":
        text = to_json(document(outcomes, alone), indent=2) + "\n"
    else:
        text = _report(suffix, outcomes, to_json(document(outcomes, alone)))
    write_whole(path, text, force)


def write_whole(path: Path, text: str, force: bool) -> None:
    """Write a file in one step: it appears complete, or not at all."""
    check_target(path, force)
    try:
        handle, draft = tempfile.mkstemp(prefix=".omnidrop-", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", newline="\n") as stream:
                stream.write(text)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(draft, 0o666 & ~mask)
            if force:
                os.replace(draft, path)
            else:
                os.link(draft, path)
                os.unlink(draft)
        except BaseException:
            os.unlink(draft)
            raise
    except FileExistsError:
        check_target(path, force)
        raise
    except OSError as problem:
        raise UsageError(
            f"It cannot be written ({problem.strerror}).", path=path, hint="Save elsewhere."
        ) from problem


def _report(suffix: str, outcomes: list[Outcome], data: str) -> str:
    from rich.terminal_theme import TerminalTheme

    from omnidrop_cli import views
    from omnidrop_cli.console import recorder
    from omnidrop_cli.words import clock  # noqa: F401  (keeps the import graph flat for typing)

    console = recorder(colour=suffix != ".txt")
    for i, outcome in enumerate(outcomes):
        if i:
            console.print()
        console.print(
            views.full(outcome.answer, with_answer=True)
            if outcome.answer is not None
            else views.failed(outcome)
        )
    if suffix == ".txt":
        lines = console.export_text(styles=False).splitlines()
        return "\n".join(line.rstrip() for line in lines) + "\n"
    theme = TerminalTheme(
        (20, 22, 27),
        (216, 219, 226),
        [(20, 22, 27), (204, 85, 85), (94, 201, 98), (230, 159, 0), (86, 180, 233),
         (204, 121, 167), (33, 145, 140), (216, 219, 226)],
    )
    title = html.escape(_title(outcomes))
    if suffix == ".svg":
        return console.export_svg(title=title, theme=theme, code_format=DRAWING)
    page = console.export_html(theme=theme, inline_styles=True, code_format="{code}")
    # `</` and `<!--` inside a script element would end it.
    return PAGE.format(title=title, code=page, data=data.replace("<", "\\u003c"))


def _title(outcomes: list[Outcome]) -> str:
    from omnidrop_cli.out import plain

    first = plain(outcomes[0].item.question)
    more = f" and {len(outcomes) - 1} more" if len(outcomes) > 1 else ""
    return f"{first}{more} · omnidrop"
