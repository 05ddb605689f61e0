"""Options from dataclasses: each field is an option, each has an environment variable.

`@grouped` turns a function of option groups into the flat signature that typer reads, so that no
function takes forty parameters. Every option has an environment variable, OMNIDROP_<OPTION>.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

import typer


def option(*names: str, panel: str, **settings: Any) -> Any:
    """Return a typer option that can also be set by OMNIDROP_<LONGEST NAME>."""
    longest = max((n for n in names if n.startswith("--")), key=len)
    variable = "OMNIDROP_" + longest.lstrip("-").replace("-", "_").upper()
    usual: dict[str, Any] = {"envvar": variable, "show_envvar": False, "show_default": False}
    return typer.Option(*names, rich_help_panel=panel, **(usual | settings))


def lines_of(variable: str) -> tuple[str, ...]:
    """Return the lines of an environment variable: a repeatable option's value holds spaces."""
    return tuple(line for line in os.environ.get(variable, "").splitlines() if line.strip())


def grouped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give typer one parameter for each field of every option group that `function` takes.

    Parameters
    ----------
    function : callable
        Its parameters are option groups (dataclasses) or plain typer parameters.

    Returns
    -------
    callable
        The same command with a flat, keyword-only signature.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type] = {}
    flat: list[inspect.Parameter] = []

    def add(name: str, annotation: Any, default: Any) -> None:
        flat.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
            )
        )

    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if not is_dataclass(kind):
            add(name, kind, parameter.default)
            continue
        groups[name] = kind  # type: ignore[assignment]
        inner = get_type_hints(kind, include_extras=True)
        for f in fields(kind):
            add(f.name, inner[f.name], f.default if f.default is not MISSING else f.default_factory)

    def command(**values: Any) -> Any:
        given = {
            name: kind(**{f.name: values.pop(f.name) for f in fields(kind)})
            for name, kind in groups.items()
        }
        return function(**given, **values)

    command.__name__ = function.__name__
    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in flat}
    return command
