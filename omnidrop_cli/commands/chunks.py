"""`omnidrop chunks CLIP --out DIR`: the frames and the audio that the model gets, by chunk."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from omnidrop_cli.completion import clips
from omnidrop_cli.options.common import Debug, ReadFlags, SpanFlags
from omnidrop_cli.options.groups import grouped, option

NAME = "chunks"
HELP = """Write a clip's temporal chunks as frames (PNG) and audio (WAV). No model is loaded.

\b
Examples:
  omnidrop chunks samples/duet.mp4 --out chunks
  omnidrop chunks samples/long.mp4 --out part --start 0:50 --end 1:00 --fps 4

The paths written go to stdout, one per line.
"""


@grouped
def command(
    clip: Annotated[
        Path, typer.Argument(metavar="CLIP", help="A local media file.", autocompletion=clips)
    ],
    out: Annotated[
        Path,
        option("--out", "-o", panel="Output", metavar="DIR", help="Folder to write; made if new."),
    ],
    quiet: Annotated[bool, option("--quiet", panel="Output", help="No notices.")] = False,
    debug: Debug = False,
    *,
    span: SpanFlags,
    read: ReadFlags,
) -> int:
    """Write a clip's chunks."""
    from omnidrop.errors import UsageError
    from omnidrop_cli.commands.answering import open_clip
    from omnidrop_cli.errors import complain
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    silence_warnings(debug)
    if out.exists() and not out.is_dir():
        raise UsageError("--out is a file.", path=out, hint="Name a folder.")
    with Progress(is_terminal(sys.stderr) and not quiet) as progress:
        progress("write chunks", 0, None)
        with open_clip(clip, span, read) as opened:
            from omnidrop.clip.export import export_chunks

            written = export_chunks(opened, out)
            notices = tuple(opened.notices)
        progress.finish()
    for path in written:
        print(path)
    if not quiet:
        for notice in notices:
            complain(notice, "notice")
    return 0
