"""`omnidrop doctor`: what this machine has, what is wrong with it, and what to type."""

from __future__ import annotations

import typer

from omnidrop.errors import ModelError
from omnidrop_cli.options.common import Debug, Json
from omnidrop_cli.options.groups import grouped

NAME = "doctor"
HELP = """Show versions, CPU and GPU, memory, codecs and cached models; say what is wrong.

\b
Examples:
  omnidrop doctor
  omnidrop doctor --json

The exit code is 4 if something that omnidrop needs is missing, else 0. Nothing is downloaded.
"""


@grouped
def command(context: typer.Context, json: Json = False, debug: Debug = False) -> int:
    """Check this machine."""
    from dataclasses import asdict

    from omnidrop_cli.commands.doctor_checks import WRONG, checkup, config_findings
    from omnidrop_cli.errors import OK, debugging
    from omnidrop_cli.libraries import silence_warnings
    from omnidrop_cli.terminal.columns import table

    silence_warnings(debug or debugging())
    findings = checkup()
    if context.parent is not None:
        findings += config_findings(context.parent.command.commands)  # type: ignore[attr-defined]
    wrong = sum(f.mark == WRONG for f in findings)
    if json:
        from omnidrop.files import to_json

        found = {"schema": "omnidrop.doctor/1", "findings": [asdict(f) for f in findings]}
        print(to_json(found, indent=2))
    else:
        rows = []
        for finding in findings:
            rows.append((finding.mark, finding.name, finding.value))
            if finding.remedy:
                rows.append(("", "", f"→ {finding.remedy}"))
        print(table(rows))
        print(f"\n{wrong} thing{'s' if wrong > 1 else ''} wrong." if wrong else "\nReady.")
    return ModelError.exit_code if wrong else OK
