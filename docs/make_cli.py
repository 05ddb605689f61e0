"""Writes docs/cli.md from the help texts of the commands; a test checks that the page is current.

python docs/make_cli.py             # writes docs/cli.md
python docs/make_cli.py --stdout    # prints it
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from omnidrop_cli.app import HELP, app
from omnidrop_cli.errors import EXIT_CODES
from omnidrop_cli.options.groups import variable

PAGE = Path(__file__).with_name("cli.md")

INTRODUCTION = """
This page is made from the commands' own help (`omnidrop COMMAND --help-all`) by `docs/make_cli.py`.
`--help` shows the ten options or so that people need.

Every option can be set by an environment variable: the value of `--max-pixels` by
`OMNIDROP_MAX_PIXELS`. The variable of an option that can be repeated, marked with *, holds one
value per line. `1` sets an option without a value. Values that are to hold for every call stand in
a config file: [omnidrop config](#omnidrop-config). What is typed goes before the environment, the
environment before the file, the file before the defaults. An error says where a value came from
that was not typed.

A share, as of `--budget`, can be written in percent: `0.3` or `30%`.

`omnidrop --install-completion` makes bash, zsh or fish complete commands, options, clips, and the
names of models, methods, presets and devices.
"""


def page() -> str:
    """Return the page: introduction, exit codes, and a section for every command."""
    group: Any = typer.main.get_command(app)
    parts = ["# Command line", *_text(HELP), INTRODUCTION.strip(), _exit_codes()]
    shown: dict[str, str] = {}
    for name, command in group.commands.items():
        parts += [f"## omnidrop {name}", *_text(command.help or ""), *_options(command, shown)]
    return "\n\n".join(parts) + "\n"


def _text(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; those that are laid out by hand as code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        laid_out, _, rest = paragraph.rpartition("\b\n")
        if not laid_out and not paragraph.startswith("\b"):
            yield _escaped(paragraph)
            continue
        heading, _, lines = rest.partition("\n")
        if heading.endswith(":"):
            yield f"{heading}"
            rest = lines
        language = "sh" if heading.startswith("Example") else "text"
        yield f"```{language}\n{inspect.cleandoc(rest)}\n```"


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    return "\n".join(["| Exit code | Meaning |", "|---:|---|", *rows])


def _options(command: Any, shown: dict[str, str]) -> Iterator[str]:
    """Yield a table of the arguments and one of the options under each heading.

    A table that another command has as well is printed there: `shown` holds its command.
    """
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    if arguments:
        rows = [
            f"| `{p.metavar or p.name.upper()}` | {_escaped(p.help or '')} |" for p in arguments
        ]
        yield "\n".join(["| Argument | |", "|---|---|", *rows])
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            panels.setdefault(parameter.rich_help_panel, []).append(parameter)
    for heading, options in panels.items():
        rows = [f"| {_name(p)} | {_escaped(p.help)} | {_default(p)} | `{variable(*p.opts)}` |"
                for p in options]  # fmt: skip
        head = f"| {heading} | | Default | Variable |"
        table = "\n".join([head, "|---|---|---|---|", *rows])
        if table in shown:
            yield f"**{heading}**: as for [omnidrop {shown[table]}](#omnidrop-{shown[table]})."
            continue
        shown[table] = command.name
        yield table


def _name(option: Any) -> str:
    names = ", ".join(sorted(option.opts, key=len))
    value = "" if option.is_flag else f" {option.metavar or 'HOW'}"
    star = " *" if option.multiple else ""
    return f"`{names}{value}`{star}".replace("|", "\\|")


def _default(option: Any) -> str:
    if option.is_flag or option.default is None:
        return ""
    value = option.default
    if isinstance(value, (list, tuple)):
        return f"`{','.join(f'{v:g}' for v in value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _escaped(text: str) -> str:
    """Return text whose characters Markdown would take for markup, outside code, are escaped."""
    parts = " ".join(text.split()).split("`")
    for i in range(0, len(parts), 2):
        for character in "|*_<":
            parts[i] = parts[i].replace(character, f"\\{character}")
    return "`".join(parts)


if __name__ == "__main__":
    if "--stdout" in sys.argv[1:]:
        sys.stdout.write(page())
    else:
        PAGE.write_text(page(), encoding="utf-8")
