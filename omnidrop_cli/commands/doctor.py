"""`omnidrop doctor`: what this machine has, what is wrong with it, and what to type."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from omnidrop_cli.errors import debugging

NAME = "doctor"
HELP = """Show versions, CPU and GPU, memory, codecs and cached models; say what is wrong.

\b
Examples:
  omnidrop doctor
  omnidrop doctor --json

The exit code is 4 if something that omnidrop needs is missing, else 0. Nothing is downloaded.
"""


def command(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", envvar="OMNIDROP_JSON", show_envvar=False, help="One JSON document on stdout."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> int:
    """Check this machine."""
    from dataclasses import asdict

    from omnidrop_cli import backend
    from omnidrop_cli.commands.doctor_checks import WRONG, checkup
    from omnidrop_cli.terminal.columns import table

    backend.hush(debug or debugging())
    findings = checkup()
    if as_json:
        print(
            json.dumps(
                {"schema": "omnidrop.doctor/1", "findings": [asdict(f) for f in findings]}, indent=2
            )
        )
    else:
        rows = []
        for finding in findings:
            rows.append((finding.mark, finding.name, finding.value))
            if finding.remedy:
                rows.append(("", "", f"→ {finding.remedy}"))
        print(table(rows))
        wrong = sum(f.mark == WRONG for f in findings)
        print(f"\n{wrong} thing{'s' if wrong > 1 else ''} wrong." if wrong else "\nReady.")
    return 4 if any(f.mark == WRONG for f in findings) else 0
