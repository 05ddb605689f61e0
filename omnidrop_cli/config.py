"""The config file: values of options that hold where nothing else sets them.

What is typed goes before the environment, the environment before the file, the file before the
defaults. A key is the name of an option without its dashes; at the top it is for every command that
has the option, under a command's name for that one:

    model = "3b"
    [eval]
    budget = [0.5, 0.2]
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from omnidrop.errors import OmniDropError, UsageError, did_you_mean, printable
from omnidrop_cli.options.groups import longest, variable

VARIABLE = "OMNIDROP_CONFIG"
#: Commands that work whatever is in the file, so that it can be looked at and mended.
LENIENT = ("config", "doctor")
#: Options that belong to one call.
TYPED_ONLY = ("question",)
#: Options whose values in the file give way when another is typed or in the environment.
GIVE_WAY = {
    "preset": ("budget", "method", "keep-mass", "set", "sweep"),
    "method": ("preset",),
    "budget": (
        "preset",
        "sweep",
        "keep-mass",
        "fit-latency",
        "fit-memory",
        "fit-pixels",
        "fit-fps",
    ),
    "sweep": ("budget", "preset"),
    "fit-latency": ("budget", "preset"),
    "fit-memory": ("budget", "preset"),
    "json": ("jsonl",),
    "jsonl": ("json",),
    "4bit": ("8bit",),
    "8bit": ("4bit",),
    "no-audio": ("audio", "audio-track", "no-video"),
    "no-video": ("video-track", "no-audio"),
    "audio": ("no-audio",),
    "audio-track": ("no-audio",),
    "video-track": ("no-video",),
}


class Config(NamedTuple):
    """What the file says: values for every command, and values for one by its name."""

    path: Path
    everywhere: Mapping[str, Any]
    commands: Mapping[str, Mapping[str, Any]]

    def of(self, command: str) -> dict[str, Any]:
        """Return the values for one command; its own go before those for every command."""
        return {**self.everywhere, **self.commands.get(command, {})}


def config_path() -> Path:
    """Return the file in use, there or not: OMNIDROP_CONFIG, or the one in the user's folder."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    folder = os.environ.get("XDG_CONFIG_HOME")
    if not folder and sys.platform == "win32":
        folder = os.environ.get("APPDATA")
    if not folder and sys.platform == "darwin":
        folder = str(Path.home() / "Library" / "Application Support")
    return Path(folder or Path.home() / ".config") / "omnidrop" / "config.toml"


def read_config() -> Config:
    """Return what the file says; nothing if there is none.

    Raises
    ------
    UsageError
        If it cannot be read or is not TOML, or OMNIDROP_CONFIG names a file that does not exist.
    """
    path = config_path()
    document = read_document(path)
    if document is None:
        if os.environ.get(VARIABLE):
            raise UsageError(
                f"There is no such file; {VARIABLE} names it.",
                path=path,
                hint=f"Unset {VARIABLE}, or make the file: omnidrop config set KEY VALUE",
            )
        return Config(path, {}, {})
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    top = {key: value for key, value in document.items() if key not in tables}
    return Config(
        path, _with_dashes(top), {name: _with_dashes(table) for name, table in tables.items()}
    )


def read_document(path: Path) -> dict[str, Any] | None:
    """Return a TOML file as it is written, or None if there is none.

    Raises
    ------
    UsageError
        If it cannot be read, or is not TOML; names line and column.
    """
    import tomllib

    try:
        text = path.read_bytes().decode("utf-8")
        return tomllib.loads(text)
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as problem:
        raise UsageError("The config file is not UTF-8 text.", path=path) from problem
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(
            f"The config file is not TOML: {problem}.", path=path, hint="Mend that line."
        ) from problem
    except OSError as problem:
        raise UsageError(
            f"The config file cannot be read ({problem.strerror}).",
            path=path,
            hint="Check its permissions.",
        ) from problem


def _with_dashes(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in table.items()}


def option_of(command: Any, key: str) -> Any:
    """Return the option that a key names among those of a typer command; None if none."""
    for parameter in command.params:
        if parameter.param_type_name == "option" and key_of(parameter) == key:
            return parameter
    return None


def key_of(parameter: Any) -> str:
    """Return the key of an option: its longest name without dashes."""
    return longest(*parameter.opts).lstrip("-")


def check_keys(config: Config, commands: Mapping[str, Any]) -> None:
    """Refuse a key that names no option, or a table that names no command.

    Raises
    ------
    UsageError
        Names file and key, and the key that is nearest.
    """
    for key, value in config.everywhere.items():
        find_options(key, commands, path=config.path)
        if isinstance(value, list) and any(isinstance(part, dict) for part in value):
            raise UsageError(f"{key!r} is not a value.", path=config.path)
    for name, table in config.commands.items():
        for key in table:
            find_options(f"{name}.{key}", commands, path=config.path)


def check_config(commands: Mapping[str, Any]) -> int:
    """Check the file in use against the commands; return how many values it sets.

    Raises
    ------
    UsageError
        As `read_config` and `file_values` do.
    """
    config = read_config()
    for command in commands.values():
        file_values(command, commands, set())
    return len(config.everywhere) + sum(map(len, config.commands.values()))


def find_options(
    key: str, commands: Mapping[str, Any], *, path: Path | None = None
) -> dict[str, Any]:
    """Return the options that `budget` or `ask.budget` names, by command.

    Raises
    ------
    UsageError
        If there is none; says what was meant.
    """
    table, dot, name = key.rpartition(".")
    name = name.replace("_", "-")
    if dot and table not in commands:
        raise UsageError(
            f"There is no command {printable(table)!r}, so no key {printable(key)!r}.",
            path=path,
            hint=f"{did_you_mean(table, commands)}Known: {', '.join(commands)}.",
        )
    chosen = {table: commands[table]} if dot else dict(commands)
    found = {where: option_of(command, name) for where, command in chosen.items()}
    found = {where: option for where, option in found.items() if option is not None}
    if found and name in TYPED_ONLY:
        raise UsageError(f"{name!r} is for the command line alone.", path=path)
    if found:
        return found
    known = {key_of(p) for c in chosen.values() for p in c.params if p.param_type_name == "option"}
    elsewhere = "" if dot or name not in commands else f"{name!r} is a command: [{name}]. "
    where = f"omnidrop {table}" if dot else "omnidrop"
    raise UsageError(
        f"Unknown key {printable(key)!r}.",
        path=path,
        hint=f"{elsewhere}{did_you_mean(name, known)}Keys are options: {where} --help-all",
    )


def file_values(command: Any, commands: Mapping[str, Any], given: set[str]) -> dict[str, Any]:
    """Return what the file sets for a command, as typer takes defaults.

    Parameters
    ----------
    command : Command
    commands : mapping of str to Command
        All of them, for the names that keys may have.
    given : set of str
        Keys that are typed or in the environment.

    Raises
    ------
    UsageError
        If the file cannot be read, has an unknown key, or a value of the wrong kind.
    """
    config = read_config()
    check_keys(config, commands)
    displaced = {key for name in given for key in GIVE_WAY.get(name, ())} | given
    found: dict[str, Any] = {}
    for key, value in config.of(command.name).items():
        parameter = option_of(command, key)
        if parameter is not None and key not in displaced:
            found[parameter.name] = as_typed(parameter, value, config.path)
    return found


def as_typed(parameter: Any, value: Any, path: Path) -> Any:
    """Return a value of the file as the command line would give it.

    Raises
    ------
    UsageError
        If a switch is not true or false, or another option is.
    """
    key = key_of(parameter)
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise UsageError(
                f"{key} is {printable(shown(value))}.", path=path, hint="Write true or false."
            )
        return value
    if isinstance(value, (bool, dict)):
        raise UsageError(
            f"{key} is {printable(shown(value))}.",
            path=path,
            hint=f"It takes a value, {parameter.metavar}.",
        )
    parts = [str(part) for part in value] if isinstance(value, list) else [str(value)]
    return parts if parameter.multiple else _joined(parts)


def _joined(parts: list[str]) -> str:
    """Return a list as the options take it: separated by commas, those with a comma in quotes."""
    if len(parts) == 1:
        return parts[0]
    import csv
    import io

    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(parts)
    return line.getvalue()


def shown(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, str):
        import json

        return json.dumps(value, ensure_ascii=False)
    return str(value)


def given_keys(command: Any, typed: Mapping[str, Any]) -> set[str]:
    """Return the keys of the options that are typed, or in the environment."""
    return {
        key_of(parameter)
        for parameter in command.params
        if parameter.param_type_name == "option"
        and (parameter.name in typed or os.environ.get(variable(*parameter.opts)))
    }


@contextmanager
def named_sources(context: Any) -> Iterator[None]:
    """Add to an error where values came from that were not typed, if it is about them."""
    try:
        yield
    except OmniDropError as problem:
        note = source_note(context, problem.paragraph())
        if note and not getattr(problem, "sourced", False):
            problem.hint = f"{problem.hint or ''} {note}".strip()
            problem.sourced = True  # type: ignore[attr-defined]
        raise


def source_note(context: Any, text: str) -> str:
    """Return where the values came from that an error is about, and that were not typed.

    An error is about an option that it names, or whose value it quotes.
    """
    notes = []
    for parameter in context.command.params:
        if parameter.param_type_name != "option":
            continue
        name, from_environment = longest(*parameter.opts), os.environ.get(variable(*parameter.opts))
        source = context.get_parameter_source(parameter.name)
        kind = source.name if source is not None else ""
        if kind == "DEFAULT_MAP":
            value, where = (context.default_map or {}).get(parameter.name), str(config_path())
        elif from_environment and kind in ("ENVIRONMENT", "DEFAULT"):
            value, where = from_environment, variable(*parameter.opts)
        else:
            continue
        quoted = isinstance(value, str) and repr(value) in text
        if quoted or re.search(rf"{re.escape(name)}(?![\w-])", text):
            what = name if parameter.is_flag else f"{name} {printable(_one_line(value))}"
            notes.append(f"({what} is from {printable(where)}.)")
    return " ".join(notes)


def _one_line(value: Any) -> str:
    text = ", ".join(value) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def write_config(path: Path, text: str) -> None:
    """Write the file in one step: a new one for the user alone, an old one with the rights it has.

    Raises
    ------
    UsageError
        If the disk refuses it.
    """
    import tempfile

    target = Path(os.path.realpath(path))  # a link, as people keep for such files, stays one
    if target.exists() and not target.is_file():  # /dev/null says "no config file"
        raise UsageError("This is no file to write to.", path=path, hint=f"Set {VARIABLE} anew.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(".toml", ".omnidrop-", target.parent)  # made with 0600
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(text.encode("utf-8"))
            with suppress(FileNotFoundError):
                os.chmod(name, target.stat().st_mode & 0o777)
            os.replace(name, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
    except UnicodeEncodeError as problem:
        raise UsageError("The value is not UTF-8 text.", path=path) from problem
    except OSError as problem:
        raise UsageError(
            f"The config file cannot be written ({problem.strerror}).",
            path=path,
            hint=f"{VARIABLE} names another file.",
        ) from problem
