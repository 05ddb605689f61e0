"""The typer application: which commands there are. Importing it imports nothing heavy."""

from __future__ import annotations

from typing import Annotated

import typer

from omnidrop_cli.commands import (
    ask,
    batch,
    calibrate,
    chat,
    chunks,
    config,
    doctor,
    estimate,
    eval,
    models,
    profile,
    report,
    serve,
    train_a2v,
    train_selector,
)
from omnidrop_cli.errors import EXIT_CODES
from omnidrop_cli.options.help import HELP_ALL, PlainCommand, PlainGroup

HELP = """Ask questions about local video, audio included. Audio and video tokens are pruned layer
by layer, guided by the question, which saves memory and time.

\b
Examples:
  omnidrop ask samples/duet.mp4 "What instrument plays first?"
  omnidrop ask samples/p*.mp4 "Is there a piano?" --choices yes,no --jsonl
  omnidrop ask talk.mp4 "Who speaks, and about what?" --model 3b
  omnidrop doctor

Words that name no command are for ask: omnidrop samples/duet.mp4 "What shape appears first?" A
command's name goes before a file of that name.

The demo model, which comes with the package, knows instruments, shapes and colours. For clips of
your own, --model 3b downloads a real one (12 GB).

Nothing is uploaded. The answer goes to stdout; report, progress and notices go to stderr.
"""

EPILOG = f"Exit codes: {', '.join(f'{code} {what}' for code, what in EXIT_CODES.items())}."

app = typer.Typer(
    name="omnidrop",
    cls=PlainGroup,
    help=HELP,
    epilog=EPILOG,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help", HELP_ALL], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        from omnidrop import __version__

        typer.echo(f"omnidrop {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


COMMANDS = (
    ask, chat, profile, estimate, eval, calibrate, batch, report, serve, chunks, models, doctor,
    config, train_a2v, train_selector,
)  # fmt: skip
for module in COMMANDS:
    app.command(name=module.NAME, cls=PlainCommand, help=module.HELP)(module.command)
