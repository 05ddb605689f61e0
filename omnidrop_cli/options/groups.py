"""Options from dataclasses: each field is an option, and each option has an environment variable.

`@grouped` turns a function of option groups into the flat signature that typer reads, so that no
function takes forty parameters. The variable of `--max-pixels` is OMNIDROP_MAX_PIXELS; that of an
option that can be repeated, such as OMNIDROP_SET, holds one value per line.

A group makes values of the library from its fields with `build`, which also checks them: what an
option may be is written once, in the library.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

import typer

from omnidrop.errors import UsageError
from omnidrop.options import LARGEST, check_size
from omnidrop_cli.completion import VALUES

Made = TypeVar("Made")


def option(*names: str, panel: str, repeatable: bool = False, **settings: Any) -> Any:
    """Return a typer option that can also be set by OMNIDROP_<LONGEST NAME>.

    Parameters
    ----------
    *names : str
        Like "--budget", "-b".
    panel : str
        Heading that the help page lists it under.
    repeatable : bool
        It takes several values; `grouped` reads its environment variable, one value per line.
    **settings
        As `typer.Option` takes them.
    """
    usual: dict[str, Any] = {"show_envvar": False, "show_default": False}
    if settings.get("parser") is not None:
        settings["parser"] = _naming(longest(*names), settings["parser"])
    usual["envvar"] = None if repeatable else variable(*names)
    usual["autocompletion"] = VALUES.get(longest(*names))
    made: Any = typer.Option(*names, rich_help_panel=panel, **(usual | settings))
    made.names, made.repeatable = names, repeatable
    return made


def _naming(name: str, parser: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a parser whose complaints name the option."""

    @functools.wraps(parser)
    def parse(text: Any) -> Any:
        try:
            return parser(text)
        except UsageError as problem:
            if name in problem.what:
                raise
            raise UsageError(f"{name}: {problem.what}", hint=problem.hint) from None

    return parse


def longest(*names: str) -> str:
    """Return the name that an option is known by: its longest."""
    return max((n for n in names if n.startswith("--")), key=len)


def variable(*names: str) -> str:
    """Return the environment variable of an option."""
    return "OMNIDROP_" + longest(*names).lstrip("-").replace("-", "_").upper()


def option_names(group: Any) -> dict[str, str]:
    """Return the option of each field of a group, or of each parameter of a function."""
    hints = get_type_hints(group, include_extras=True)
    infos = {name: _info(hint) for name, hint in hints.items()}
    return {name: longest(*info.names) for name, info in infos.items() if info is not None}


def build(kind: Callable[..., Made], group: Any, /, **values: Any) -> Made:
    """Make a value of the library; its complaints name the options.

    Parameters
    ----------
    kind : callable
        A dataclass of the library.
    group : type or callable
        Whose fields name the options, as `option_names` takes it.
    **values
        Fields of `kind`.

    Raises
    ------
    UsageError
        As `kind` does, with `max_frames` called `--max-frames`.
    """
    try:
        return kind(**values)
    except UsageError as problem:
        names = option_names(group)
        what = re.sub(r"\b[a-z_]+\b", lambda word: names.get(word[0], word[0]), problem.what)
        raise UsageError(what, path=problem.path, hint=problem.hint) from None


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
        inner = _hints(kind)  # type: ignore[arg-type]
        for f in fields(kind):
            add(f.name, inner[f.name], f.default if f.default is not MISSING else f.default_factory)

    annotations = {p.name: p.annotation for p in flat}

    def command(**values: Any) -> Any:
        for name, annotation in annotations.items():
            if not values.get(name):
                values[name] = _lines(annotation) or values.get(name)
            _check_size(annotation, values.get(name))
        given = {
            name: kind(**{f.name: values.pop(f.name) for f in fields(kind)})
            for name, kind in groups.items()
        }
        return function(**given, **values)

    command.__name__ = function.__name__
    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    command.__annotations__ = annotations
    command.groups = groups  # type: ignore[attr-defined]
    return command


@functools.cache
def _hints(group: type) -> dict[str, Any]:
    """Return the types of a group's fields; several commands have the same groups."""
    return get_type_hints(group, include_extras=True)


def _info(annotation: Any) -> Any:
    """Return the typer option in an annotation; None where there is none."""
    marks = getattr(annotation, "__metadata__", ())
    return next((mark for mark in marks if hasattr(mark, "repeatable")), None)


def _check_size(annotation: Any, value: Any) -> None:
    """Refuse a whole number that overflows somewhere; a seed may have 63 bits."""
    info = _info(annotation)
    if info is not None and isinstance(value, int):
        name = longest(*info.names)
        check_size(name, abs(value), 2**63 - 1 if name == "--seed" else LARGEST)


def _lines(annotation: Any) -> list[Any]:
    """Return the values that the environment gives a repeatable option: one per line."""
    info = _info(annotation)
    if info is None or not info.repeatable:
        return []
    text = os.environ.get(variable(*info.names), "")
    read = info.parser or str
    return [read(line) for line in text.splitlines() if line.strip()]


__all__ = ["build", "grouped", "longest", "option", "option_names", "variable"]
