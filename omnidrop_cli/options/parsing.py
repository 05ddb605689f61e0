"""Values from what people type: times, budgets, sizes, choices, settings, stdin."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError, printable
from omnidrop.parsing import seconds_of, split_choices

SUFFIXES = (".json", ".html", ".svg", ".txt")


def parse_time(text: Any) -> float:
    """Return the seconds of `75`, `1:15` or `0:01:15.5`."""
    if isinstance(text, (int, float)):
        return float(text)
    seconds = seconds_of(text)
    if seconds is None:
        raise UsageError(
            f"{printable(text)!r} is not a time.",
            hint="Write seconds, mm:ss or hh:mm:ss, like 1:15.",
        )
    return seconds


def parse_share(text: Any) -> float:
    """Return the number of `0.3` or of `30%`.

    Raises
    ------
    UsageError
        If it is neither; whether it is in range is for the option to say.
    """
    if isinstance(text, (int, float)):
        return float(text)
    number, percent, rest = text.strip().partition("%")
    try:
        if rest:
            raise ValueError
        float(number)  # refuses 3e2e-2
        return float(f"{number.strip()}e-2") if percent else float(number)
    except ValueError:
        raise UsageError(
            f"{printable(text)!r} is not a share.", hint="Write it like 0.3 or 30%."
        ) from None


def parse_budget(text: Any) -> Any:
    """Return the number of `0.3` or `30%`; `auto` stays as it is."""
    if isinstance(text, str) and text.strip().lower() == "auto":
        return "auto"
    try:
        return parse_share(text)
    except UsageError:
        raise UsageError(
            f"--budget {printable(text)!r} is not a number.",
            hint="Give one like 0.3 or 30%, or auto.",
        ) from None


def check_budget(budget: float) -> float:
    """Return a budget, or refuse one that is not above 0 and up to 1."""
    if not 0.0 < budget <= 1.0:
        percent = f" Did you mean {budget:g}%?" if 1.0 < budget <= 100.0 else ""
        raise UsageError(
            f"--budget {budget:g} is not valid (0 < budget <= 1).",
            hint=f"Give the share of audio and video tokens to keep, like 0.3 or 30%.{percent}",
        )
    return budget


def parse_budgets(text: Any) -> tuple[float, ...]:
    """Return the budgets of `.5,.3,.2` or of `50%,20%`, each once."""
    if not isinstance(text, str):
        return tuple(text)
    try:
        found = tuple(parse_share(part) for part in split_words(text))
    except UsageError:
        found = ()
    if not found:
        raise UsageError(
            f"--budget {printable(text)!r} is not a list of budgets.",
            hint="Separate them by commas, like 0.5,0.3,0.2 or 50%,30%,20%.",
        )
    return tuple(check_budget(budget) for budget in dict.fromkeys(found))


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of `a, b,c`, each once."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def split_values(text: str) -> list[str]:
    """Split at commas that are not inside brackets or quotes."""
    parts, depth, quoted = [""], 0, False
    for letter in text:
        quoted ^= letter == '"'
        depth += 0 if quoted else (letter in "[{") - (letter in "]}")
        if letter == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def parse_duration(text: Any) -> float:
    """Return the seconds of `2s`, `500 ms` or `2`."""
    return _quantity(text, {"": 1.0, "s": 1.0, "ms": 1e-3}, "a duration", "2s or 500ms")


def parse_long_duration(text: Any) -> float:
    """Return the seconds of `5m`, `2 h`, `90s` or `90`; 0 is one too."""
    if isinstance(text, str) and re.fullmatch(r"0+(\.0*)? ?[a-z]*", text.strip(), re.ASCII):
        text = 0.0
    units = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    return _quantity(text, units, "a duration", "90s, 5m or 2h")


def parse_size(text: Any) -> float:
    """Return the bytes of `12GB`, `12 GiB` or `800MB`."""
    units = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    units |= {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40}
    return _quantity(text, units, "an amount of memory", "12GB or 800MB")


def _quantity(text: Any, units: dict[str, float], what: str, like: str) -> float:
    if isinstance(text, (int, float)):
        return float(text)
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+) ?([A-Za-z]*)", text.strip(), re.ASCII)
    known = {unit.lower(): factor for unit, factor in units.items()}
    factor = known.get(found[2].lower()) if found else None
    if found is None or factor is None or not 0 < float(found[1]) * factor < math.inf:
        raise UsageError(f"{printable(text)!r} is not {what}.", hint=f"Write it like {like}.")
    return float(found[1]) * factor


def parse_choices(text: Any) -> tuple[str, ...]:
    """Return the choices of `yes,no` or of `"red, white",blue`."""
    if not isinstance(text, str):
        return tuple(text)
    choices = split_choices(text)
    if len(choices) < 2 or not all(choices):
        raise UsageError(
            f"--choices {printable(text)!r} does not name two or more choices.",
            hint="Separate them by commas, like yes,no.",
        )
    if len(set(choices)) < len(choices):
        raise UsageError(f"--choices {printable(text)!r} names a choice twice.")
    return choices


def parse_save(text: Any) -> Path:
    """Return the file that answers are saved to; its suffix is the format."""
    return with_suffix(text, "--save", SUFFIXES)


def with_suffix(text: Any, name: str, suffixes: tuple[str, ...]) -> Path:
    """Return the file given to an option, or refuse one with a suffix that is not among these."""
    path = Path(text)
    if path.suffix.lower() not in suffixes:
        raise UsageError(
            f"{name} cannot write {printable(path.name)!r}.",
            hint=f"End the name in {', '.join(suffixes[:-1])} or {suffixes[-1]}.",
        )
    return path


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that `name=value` words set; `entry.seed` is one of a joined method."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = setting_name(name)
        if not equals or not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(
                f"--set {printable(pair)!r} is not NAME=VALUE.", hint="Write it like diversity=0."
            )
        if name == "budget":
            raise UsageError("--set budget=… is not needed.", hint="Use --budget.")
        found[name] = parse_value(value)
    return found


def setting_name(text: str) -> str:
    """Return the field that `t-mid` or `entry.seed` names."""
    return text.strip().replace("-", "_")


def parse_value(text: str) -> Any:
    """Return a setting's value: JSON where it can be, None for `none`, else the text itself."""
    text = text.strip()
    try:
        if re.fullmatch(r"[-+]?\.\d+", text):  # .5 is a number to people, but not to JSON
            return float(text)
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return None if text.lower() == "none" else text


def read_stdin() -> str:
    """Return all of stdin as text; bytes that are not UTF-8 survive as in file names."""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
