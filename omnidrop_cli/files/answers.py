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
    from omnidrop_cli.commands.answering import Outcome
    from omnidrop_cli.terminal.answer import View

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
        raise UsageError("The file to save exists.", path=path, hint="Add --force to replace it.")
    if not os.access(folder, os.W_OK):
        raise UsageError("The folder to save in cannot be written.", path=folder)


def save(path: Path, outcomes: list[Outcome], *, alone: bool, force: bool) -> None:
    """Write `outcomes` to `path` in the format of its suffix.

    Raises
    ------
    UsageError
        If the file has appeared since the check, or the disk refuses it.
    """
    from omnidrop_cli.files.stdout import document, to_json

    suffix = path.suffix.lower()
    if suffix == ".json":
        text = to_json(document(outcomes, alone), indent=2) + "\n"
    else:
        text = _report(suffix, outcomes, to_json(document(outcomes, alone)))
    write_whole(path, text, force)


def write_whole(path: Path, content: str | bytes, force: bool) -> None:
    """Write a file in one step: it appears complete, or not at all."""
    check_target(path, force)
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    try:
        handle, draft = tempfile.mkstemp(prefix=".omnidrop-", dir=path.parent)
        try:
            with open(handle, "wb") as stream:
                stream.write(data)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(draft, 0o666 & ~mask)
            if force or not _link(draft, path):
                os.replace(draft, path)
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


def _link(draft: str, path: Path) -> bool:
    """Give a finished draft its name unless that is taken; False where there are no hard links."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        return False
    os.unlink(draft)
    return True


def _report(suffix: str, outcomes: list[Outcome], data: str) -> str:
    from omnidrop_cli.files.stdout import plain
    from omnidrop_cli.files.svg import to_svg
    from omnidrop_cli.terminal.console import SAVED_WIDTH, recorder

    title = _title(outcomes)
    if suffix == ".txt":
        console = recorder(colour=False, width=TEXT_WIDTH)
        texts = (
            "".join(segment.text for segment in line).rstrip()
            for outcome in outcomes
            for line in console.render_lines(_view(outcome), pad=False)
        )
        return "\n".join(texts).strip("\n") + "\n"
    console = recorder(colour=True)
    in_drawing = suffix == ".svg"  # a page has the answer above the drawing
    drawn = [console.render_lines(_view(o, in_drawing), pad=False) for o in outcomes]
    if suffix == ".svg":
        return to_svg([line for lines in drawn for line in lines], SAVED_WIDTH, title)
    parts = []
    for outcome, lines in zip(outcomes, drawn, strict=True):
        said = outcome.answer.text if outcome.answer is not None else outcome.failure()["error"]
        parts.append(f"<h1>{html.escape(plain(outcome.item.question))}</h1>")
        parts.append(f"<p>{html.escape(plain(said))}</p>")
        parts.append(to_svg(lines, SAVED_WIDTH, plain(outcome.item.question)))
    return page(title, parts, data, "answers")


def page(title: str, parts: list[str], data: str, name: str) -> str:
    """Return a page of its own: parts of HTML, and `data`, JSON text, under the id `name`."""
    # `</` and `<!--` inside a script element would end it.
    return PAGE.format(
        title=html.escape(title),
        body="\n".join(parts),
        data=data.replace("<", "\\u003c"),
        name=name,
    )


def _view(outcome: Outcome, with_answer: bool = True) -> View:
    from omnidrop_cli.terminal import answer as views

    if outcome.answer is None:
        return views.failed(outcome)
    return views.full(outcome.answer, with_answer=with_answer)


def _title(outcomes: list[Outcome]) -> str:
    from omnidrop_cli.files.stdout import plain

    first = plain(outcomes[0].item.question)
    more = f" and {len(outcomes) - 1} more" if len(outcomes) > 1 else ""
    return f"{first}{more} · omnidrop"
