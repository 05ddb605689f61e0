"""`omnidrop config`: look at the config file, and change one key of it."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnidrop.errors import UsageError, did_you_mean, printable
from omnidrop_cli.completion import one_of, starting
from omnidrop_cli.options.common import Debug, Json
from omnidrop_cli.options.groups import grouped

if TYPE_CHECKING:
    from omnidrop_cli.config import Config

NAME = "config"
HELP = """Show and change the config file: values of options that hold for every call.

\b
Examples:
  omnidrop config set model 3b
  omnidrop config set ask.report brief
  omnidrop config set eval.budget 50%,20%
  omnidrop config get ask.report
  omnidrop config unset model
  omnidrop config list
  omnidrop config path

A key is the name of an option without its dashes: for every command that has it, or for one as
COMMAND.OPTION. What is typed goes before the environment, the environment before the file, the file
before the defaults. A typed option also puts aside what it excludes, as --preset does a budget.

The file is TOML, and can be edited as well; comments are kept. OMNIDROP_CONFIG names another file.
Of a repeatable option several values can be given: omnidrop config set ask.set rows=last beta=2
"""


class Action(StrEnum):
    """What is done with the file."""

    list = "list"
    path = "path"
    get = "get"
    set = "set"
    unset = "unset"


#: How many words follow: least and most; None for any number.
WORDS: dict[Action, tuple[int, int | None]] = {
    Action.list: (0, 0),
    Action.path: (0, 0),
    Action.get: (1, 1),
    Action.set: (2, None),
    Action.unset: (1, 1),
}
USAGE = {
    Action.get: "omnidrop config get KEY",
    Action.set: "omnidrop config set KEY VALUE",
    Action.unset: "omnidrop config unset KEY",
}
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
HEAD = """# Values of omnidrop's options. A key is an option without dashes; those of one command
# stand under its name, like [ask]. What is typed and the environment go before this file.
"""


def complete_words(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return keys for `omnidrop config`, then values of the key."""
    from omnidrop_cli.config import TYPED_ONLY, key_of

    parent = ctx.parent
    if parent is None or ctx.params.get("action") not in ("get", "set", "unset"):
        return []
    commands: dict[str, Any] = parent.command.commands  # type: ignore[attr-defined]
    options = {
        (name, key_of(parameter)): parameter
        for name, command in commands.items()
        for parameter in command.params
        if parameter.param_type_name == "option" and key_of(parameter) not in TYPED_ONLY
    }
    typed = ctx.params.get("words") or []
    if not typed:
        own = [f"{name}.{key}" for name, key in options if incomplete.startswith(name)]
        return starting(incomplete, sorted({key for _, key in options}) + own)
    key = typed[0].rpartition(".")[2]
    option = next((option for (_, name), option in options.items() if name == key), None)
    if option is None or ctx.params["action"] != "set":
        return []
    if option.is_flag:
        return starting(incomplete, ("true", "false"))
    return [item.value for item in option.shell_complete(ctx, incomplete)]


@grouped
def command(
    context: typer.Context,
    action: Annotated[
        str,
        typer.Argument(
            metavar="[ACTION]",
            help="list (usual), path, get, set or unset.",
            autocompletion=one_of("list", "path", "get", "set", "unset"),
        ),
    ] = "list",
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY] [VALUE...]",
            help="Like model 3b, or ask.budget 30%.",
            autocompletion=complete_words,
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> int:
    """Show and change the config file."""
    from omnidrop_cli.config import config_path, read_config

    given = list(words or ())
    what = _action(action, given)
    commands: dict[str, Any] = context.parent.command.commands  # type: ignore[union-attr]
    if what is Action.path:
        print(config_path())
    elif what is Action.list:
        _list(read_config(), json)
    elif what is Action.get:
        _get(read_config(), given[0], commands, json)
    elif what is Action.set:
        _set(given[0], given[1:], commands)
    else:
        _unset(given[0])
    return 0


def _action(name: str, words: list[str]) -> Action:
    try:
        what = Action(name)
    except ValueError:
        raise UsageError(
            f"There is no action {printable(name)!r}.",
            hint=f"{did_you_mean(name, list(Action))}Known: {', '.join(Action)}.",
        ) from None
    least, most = WORDS[what]
    if len(words) < least or (most is not None and len(words) > most):
        raise UsageError(
            "A key is missing." if not words and least else
            "A value is missing." if len(words) < least else "There are too many words.",
            hint=f"Type: {USAGE.get(what, f'omnidrop config {what}')}",
        )  # fmt: skip
    return what


def _pairs(config: Config) -> dict[str, Any]:
    """Return every key that is set, as it is typed, with its value."""
    found = dict(config.everywhere)
    for name, table in config.commands.items():
        found |= {f"{name}.{key}": value for key, value in table.items()}
    return found


def _list(config: Config, json: bool) -> None:
    from omnidrop_cli.config import shown

    found = _pairs(config)
    if json:
        from omnidrop.files import to_json

        document = {"schema": "omnidrop.config/1", "path": config.path, "values": found}
        print(to_json(document, indent=2))
        return
    there = "" if config.path.exists() else ", which does not exist"
    print(f"omnidrop: {printable(config.path)}{there}", file=sys.stderr)
    for key, value in found.items():
        print(f"{key} = {printable(shown(value))}")


def _get(config: Config, key: str, commands: dict[str, Any], json: bool) -> None:
    from omnidrop_cli.config import find_options

    find_options(key, commands)
    table, _, name = key.replace("_", "-").rpartition(".")
    found = config.of(table) if table else dict(config.everywhere)
    if name not in found:
        raise UsageError(
            f"{key} is not set.", path=config.path, hint=f"Set it: omnidrop config set {key} VALUE"
        )
    value = found[name]
    if json:
        from omnidrop.files import to_json

        print(to_json(value))
    elif isinstance(value, bool):
        print("true" if value else "false")
    else:
        print("\n".join(map(str, value)) if isinstance(value, list) else value)


def _set(key: str, values: list[str], commands: dict[str, Any]) -> None:
    from omnidrop_cli.config import config_path, find_options, key_of, write_config
    from omnidrop_cli.files.toml_edit import set_key

    options = find_options(key, commands)
    table = key.rpartition(".")[0]
    first = next(iter(options.values()))
    literal = _literal(first, values)
    path = config_path()
    _check_everywhere(key, options, commands, literal)
    text = _text()
    write_config(path, set_key(text or HEAD, table, key_of(first), literal))
    made = "" if text is not None else ", a new file"
    print(f"omnidrop: {key} = {literal} in {printable(path)}{made}", file=sys.stderr)


def _unset(key: str) -> None:
    from omnidrop_cli.config import config_path, read_config, write_config
    from omnidrop_cli.files.toml_edit import remove_key

    table, _, name = key.replace("_", "-").rpartition(".")
    path = config_path()
    known = _pairs(read_config())
    if key.replace("_", "-") not in known:
        raise UsageError(f"{key} is not set.", path=path, hint=did_you_mean(key, known).strip())
    write_config(path, remove_key(_text() or "", table, name))
    print(f"omnidrop: {key} is no longer in {printable(path)}", file=sys.stderr)


def _text() -> str | None:
    """Return the file's text, or None if there is none; a file that is not TOML is refused."""
    from omnidrop_cli.config import config_path, read_document

    path = config_path()
    if read_document(path) is None:
        return None
    return path.read_text(encoding="utf-8")


def _literal(parameter: Any, values: list[str]) -> str:
    """Return what is typed as TOML: true, a number, a string, or a list of strings."""
    from omnidrop_cli.config import key_of, shown

    key = key_of(parameter)
    if parameter.multiple:
        return shown(values)
    if len(values) > 1:
        raise UsageError(f"{key} takes one value.", hint="Put it in quotes if it has spaces.")
    (text,) = values
    if parameter.is_flag:
        if text.lower() not in TRUE + FALSE:
            raise UsageError(f"{key} is on or off.", hint="Say true or false.")
        return shown(text.lower() in TRUE)
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text and text[-1].isdigit():
            return text
    return shown(text)


def _check(command: Any, parameter: Any, literal: str) -> None:
    """Refuse a value that the command would refuse.

    The option's group is made from this value and what the file holds for the same group.
    """
    import tomllib
    from dataclasses import fields

    from omnidrop_cli.config import as_typed, config_path, option_of, read_document

    value = as_typed(parameter, tomllib.loads(f"x = {literal}")["x"], config_path())
    document = read_document(config_path()) or {}
    table = document.get(command.name, {})
    held = {k: v for k, v in document.items() if not isinstance(v, dict)} | (
        table if isinstance(table, dict) else {}
    )
    groups = getattr(command.callback, "groups", {})
    kind = next((k for k in groups.values() if parameter.name in {f.name for f in fields(k)}), None)
    names = {f.name for f in fields(kind)} if kind is not None else set()
    with typer.Context(command, info_name=f"omnidrop {command.name}") as context:
        made = {parameter.name: parameter.process_value(context, value)}
        for other, given in held.items():
            option = option_of(command, other.replace("_", "-"))
            if option is not None and option.name in names - made.keys():
                typed = as_typed(option, given, config_path())
                made[option.name] = option.process_value(context, typed)
    if kind is not None:
        kind(**made)


def _check_everywhere(
    key: str, options: dict[str, Any], commands: dict[str, Any], literal: str
) -> None:
    """Refuse a value that a command would refuse for which it is set."""
    refusals: dict[str, UsageError] = {}
    for name, parameter in options.items():
        try:
            _check(commands[name], parameter, literal)
        except UsageError as problem:
            refusals[name] = problem
    if not refusals:
        return
    first = next(iter(refusals.values()))
    if len(refusals) == len(options):
        raise first
    raise UsageError(
        f"It does not suit {', '.join(refusals)}: {first.what}",
        hint=f"Set it for one command: omnidrop config set {next(iter(options))}.{key} …",
    )


__all__ = ["HELP", "NAME", "command"]
