"""`omnidrop models`: the names that --model, --method and --preset take."""

from __future__ import annotations

from typing import Annotated, Any

import typer

NAME = "models"
HELP = """List the names that --model, --method and --preset take.

\b
Examples:
  omnidrop models
  omnidrop models --json

--model also takes any folder or hub name that holds a model of a known family.
"""


def command(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", envvar="OMNIDROP_JSON", show_envvar=False, help="One JSON document on stdout."
        ),
    ] = False,
) -> int:
    """List models, methods and presets."""
    from dataclasses import asdict, fields

    from omnidrop_cli import backend
    from omnidrop_cli.files.stdout import to_json
    from omnidrop_cli.terminal.format import setting

    backend.hush(False)
    models = [asdict(m) for m in backend.known_models()]
    methods: list[dict[str, Any]] = [
        {
            "name": name,
            "about": backend.describe_method(kind),
            "settings": {f.name: f.default for f in fields(kind)},
        }
        for name, kind in backend.known_methods().items()
    ]
    presets = [
        {"name": name, "method": chosen.name, "settings": chosen.settings()}
        for name, chosen in backend.known_presets().items()
    ]
    if as_json:
        found = {"models": models, "methods": methods, "presets": presets}
        print(to_json({"schema": "omnidrop.models/1", **found}, indent=2))
        return 0
    _show("Models (--model)", [_model_row(m) for m in models])
    _show(
        "Methods (--method; settings with --set)",
        [
            row
            for m in methods
            for row in (
                (m["name"], m["about"]),
                ("", ", ".join(f"{k}={setting(v)}" for k, v in m["settings"].items())),
            )
        ],
    )
    _show(
        "Presets (--preset)",
        [(p["name"], f"{p['method']} " + ", ".join(_differences(p, methods))) for p in presets],
    )
    return 0


def _show(heading: str, rows: list[tuple[str, ...]]) -> None:
    from omnidrop_cli.terminal.columns import table

    print(heading)
    print(table(rows, indent=2))
    print()


def _model_row(model: dict[str, Any]) -> tuple[str, ...]:
    from omnidrop_cli.terminal.format import size

    if model.get("demo"):
        about = "knows only instruments, shapes and colours"
    elif model.get("folder"):
        about = f"on this machine, {size(model.get('bytes'))}"
    else:
        about = "not downloaded yet"
    return str(model["alias"]), str(model["name"]), about


def _differences(preset: dict[str, Any], methods: list[dict[str, Any]]) -> list[str]:
    from omnidrop_cli.terminal.format import setting

    usual = next(m["settings"] for m in methods if m["name"] == preset["method"])
    return [f"{k}={setting(v)}" for k, v in preset["settings"].items() if usual.get(k) != v]
