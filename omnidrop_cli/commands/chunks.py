"""`omnidrop chunks CLIP --out DIR`: see and hear what the model is shown, chunk by chunk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from omnidrop_cli.options.common import ReadFlags, SpanFlags
from omnidrop_cli.options.groups import grouped, option

NAME = "chunks"
HELP = """Write a clip's temporal chunks as pictures (PNG) and sound (WAV). No model is loaded.

\b
Examples:
  omnidrop chunks clip.mp4 --out chunks
  omnidrop chunks clip.mp4 --out chunks --start 1:00 --end 1:20 --fps 4

The paths written go to stdout, one per line.
"""


@grouped
def command(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A local media file.")],
    out: Annotated[
        Path,
        option("--out", "-o", panel="Output", metavar="DIR", help="Folder to write; made if new."),
    ],
    quiet: Annotated[bool, option("--quiet", panel="Output", help="No notices.")] = False,
    debug: Annotated[
        bool, option("--debug", panel="Output", help="Show tracebacks and library warnings.")
    ] = False,
    *,
    span: SpanFlags,
    read: ReadFlags,
) -> int:
    """Write a clip's chunks."""
    from omnidrop.errors import UsageError
    from omnidrop_cli import backend
    from omnidrop_cli import errors as guard
    from omnidrop_cli.terminal.progress import Progress

    backend.hush(debug)
    backend.check_file(clip)
    if out.exists() and not out.is_dir():
        raise UsageError("--out is a file.", path=out, hint="Name a folder.")
    with Progress(guard.is_terminal(sys.stderr) and not quiet) as progress:
        progress("write chunks", 0, None)
        with backend.open_clip(clip, span, read) as opened:
            written = backend.export_chunks(opened, out)
            notices = tuple(opened.notices)
        progress.finish()
    for path in written:
        print(path)
    if not quiet:
        for notice in notices:
            guard.complain(notice, "notice")
    return 0
