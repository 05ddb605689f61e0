"""`omnidrop models`: the names that --model, --method and --preset take."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.common import Debug, Json, Quiet
from omnidrop_cli.options.groups import grouped

if TYPE_CHECKING:
    from omnidrop.models.locations import KnownModel
    from omnidrop.pruning.method import Method
    from omnidrop.recommended import Recommended

NAME = "models"
HELP = """List the names that --model, --method and --preset take; get downloads a model.

\b
Examples:
  omnidrop models
  omnidrop models --json
  omnidrop models get 3b
  omnidrop models get 7b@main

--model also takes any folder or hub name that holds a model of a known family. After a hub name or
a short one, @REVISION names a branch, a tag or a commit. A download goes on where an earlier one
ended, leaves out files of parts that are not used, and ends if the hub is silent for 30 s
(HF_HUB_DOWNLOAD_TIMEOUT). Its folder is written to stdout.

Each model has a default method and budget, for questions that name neither; where they come from
stands beside them. Nothing is dropped by default where that would save less than a tenth of the
time to the first token.
"""

DEMO_ABOUT = "only instruments, shapes, colours"
JOINED = "Two joined, like uniform+omnidrop: the first selects at entry, the second in the layers."


@dataclass(frozen=True)
class MethodEntry:
    """A method as it is listed: its name, a sentence, and its settings' defaults."""

    name: str
    about: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, name: str, kind: type[Method]) -> MethodEntry:
        """Return the entry of a method's class."""
        from omnidrop.pruning.registry import describe

        usual = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
        return cls(name, describe(kind), usual)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield name and sentence, then the settings; the budget has an option of its own."""
        yield self.name, self.about
        own = {name: value for name, value in self.settings.items() if name != "budget"}
        if own:
            yield "", _settings(own)


@dataclass(frozen=True)
class PresetEntry:
    """A published setting as it is listed."""

    name: str
    method: str
    settings: dict[str, Any]

    def differences(self, methods: list[MethodEntry]) -> dict[str, Any]:
        """Return the settings that differ from the method's defaults."""
        usual = next((m.settings for m in methods if m.name == self.method), {})
        return {name: value for name, value in self.settings.items() if usual.get(name) != value}


@grouped
def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[get NAME]", help="Download this model into the hub's cache."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    """List models, methods and presets, or download a model."""
    if words:
        if words[0] != "get" or len(words) != 2:
            raise UsageError(
                f"{printable(' '.join(words))!r} is not a command of models.",
                hint="Type: omnidrop models get NAME",
            )
        return get(words[1], json=json, quiet=quiet, debug=debug)
    return show(json=json, debug=debug)


def get(name: str, *, json: bool, quiet: bool, debug: bool) -> int:
    """Download a model, or what is missing of it; write its folder to stdout."""
    from omnidrop.models.locations import get_model
    from omnidrop_cli.libraries import downloads, silence_warnings
    from omnidrop_cli.terminal.console import is_terminal
    from omnidrop_cli.terminal.progress import Progress

    silence_warnings(debug)
    with Progress(is_terminal(sys.stderr) and not quiet) as progress:
        found = get_model(name, progress=downloads(progress, quiet=quiet))
    if json:
        from omnidrop.files import to_json

        document = {"schema": "omnidrop.models.get/1", "name": found.name, "folder": found.folder}
        print(to_json(document, indent=2))
    else:
        print(printable(found.folder))
    return 0


def show(*, json: bool, debug: bool) -> int:
    """List models, methods and presets."""
    from omnidrop.models.locations import known_models
    from omnidrop.pruning.registry import methods, presets, wrappers
    from omnidrop.recommended import SAFE
    from omnidrop_cli.libraries import silence_warnings

    silence_warnings(debug)
    models = known_models()
    kinds = [MethodEntry.of(name, kind) for name, kind in methods().items()]
    splits = [MethodEntry.of(f"METHOD@{name}", kind) for name, kind in wrappers().items()]
    published = [PresetEntry(name, m.name, m.settings()) for name, m in presets().items()]
    if json:
        from omnidrop.files import to_json

        found = {
            "schema": "omnidrop.models/1",
            "models": [asdict(model) for model in models],
            "other_models": {"recommended": asdict(SAFE)},
            "methods": [asdict(kind) for kind in kinds],
            "wrappers": [asdict(kind) for kind in splits],
            "presets": [asdict(preset) for preset in published],
        }
        print(to_json(found, indent=2))
        return 0
    _show("Models (--model)", [row for model in models for row in model_rows(model)])
    defaults = [(model.alias, *default(model.recommended)) for model in models]
    _show("Defaults (without --method and --budget)", [*defaults, ("others", *default(SAFE))])
    method_rows = [row for kind in kinds for row in kind.rows()]
    joined_rows = [("ENTRY+LAYERS", JOINED), *(row for kind in splits for row in kind.rows())]
    _show("Methods (--method; settings with --set)", [*method_rows, *joined_rows])
    preset_rows = [(p.name, f"{p.method} {_settings(p.differences(kinds))}") for p in published]
    _show("Presets (--preset)", preset_rows)
    return 0


def model_rows(model: KnownModel) -> Iterator[tuple[str, str, str]]:
    """Yield alias, name, where the model is and how large; and what to know about the demo."""
    from omnidrop.models.locations import DEMO

    where = model.state if model.size is None else f"{model.state}, {model.size}"
    yield model.alias, model.name, where
    if model.alias == DEMO:
        yield "", DEMO_ABOUT, ""


def default(found: Recommended) -> tuple[str, str]:
    """Return a model's default method and budget, and the source of that choice."""
    return f"{found.method} at {100 * found.budget:g} %", found.source


def _settings(values: dict[str, Any]) -> str:
    from omnidrop.format import setting

    return ", ".join(f"{name}={setting(value)}" for name, value in values.items())


def _show(heading: str, rows: Sequence[tuple[str, ...]]) -> None:
    from omnidrop_cli.terminal.columns import table

    print(heading)
    print(table(rows, indent=2))
    print()


__all__ = ["HELP", "NAME", "command", "model_rows"]
