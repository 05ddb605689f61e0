"""Words that people type, turned into values: times, choices, setting pairs, stdin."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError, printable

SUFFIXES = (".json", ".html", ".svg", ".txt")


def parse_time(text: Any) -> float:
    """Return the seconds that `75`, `1:15` or `0:01:15.5` mean."""
    if isinstance(text, (int, float)):
        return float(text)
    wrong = UsageError(
        f"{printable(text)!r} is not a time.", hint="Write seconds, mm:ss or hh:mm:ss, like 1:15."
    )
    parts = text.strip().split(":")
    if not 1 <= len(parts) <= 3:
        raise wrong
    try:
        numbers = [float(p) if i == len(parts) - 1 else float(int(p)) for i, p in enumerate(parts)]
    except ValueError:
        raise wrong from None
    if any(not math.isfinite(n) or n < 0 for n in numbers) or any(n >= 60 for n in numbers[1:]):
        raise wrong
    return sum(n * 60.0**i for i, n in enumerate(reversed(numbers)))


def parse_budget(text: Any) -> Any:
    """Return the share that `0.3` means; `auto` stays as it is."""
    if isinstance(text, str) and text.strip().lower() == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"--budget {printable(text)!r} is not a share.", hint="Give one like 0.3, or auto."
        ) from None


def parse_shares(parts: Iterable[str], said: str, like: str = "0.5,0.3,0.2") -> tuple[float, ...]:
    """Return the shares that the parts of --budget mean, each once.

    Parameters
    ----------
    parts : iterable of str
    said : str
        The whole, as it was typed.
    like : str
        The example to give where it is no list of shares.
    """
    try:
        found = tuple(float(part) for part in parts)
    except ValueError:
        found = ()
    if not found or not all(0.0 < share <= 1.0 for share in found):
        raise UsageError(
            f"--budget {printable(said)!r} is no list of shares.",
            hint=f"Give shares above 0 and up to 1, separated by commas, like {like}.",
        )
    return tuple(dict.fromkeys(found))


def parse_duration(text: Any) -> float:
    """Return the seconds that `2s`, `500 ms` or `2` mean."""
    return _quantity(text, {"": 1.0, "s": 1.0, "ms": 1e-3}, "a duration", "2s or 500ms")


def parse_size(text: Any) -> float:
    """Return the bytes that `12GB`, `12 GiB` or `800MB` mean."""
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
    """Return the choices of `yes,no` or `"red, white",blue`."""
    if not isinstance(text, str):
        return tuple(text)
    rows = list(csv.reader([text], skipinitialspace=True))
    choices = tuple(c.strip() for c in (rows[0] if rows else []))
    if len(choices) < 2 or not all(choices):
        raise UsageError(
            f"--choices {printable(text)!r} does not name two or more choices.",
            hint="Separate them by commas, like yes,no.",
        )
    if len(set(choices)) < len(choices):
        raise UsageError(f"--choices {printable(text)!r} names a choice twice.")
    return choices


def parse_save(text: Any) -> Path:
    """Return the file to save to, once its suffix is known to be one that can be written."""
    path = Path(text)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--save cannot write {printable(path.name)!r}.",
            hint=f"End the name in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.",
        )
    return path


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that `name=value` words set; values are JSON where they can be."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name.isidentifier():
            raise UsageError(
                f"--set {printable(pair)!r} is not NAME=VALUE.", hint="Write it like diversity=0."
            )
        if name == "budget":
            raise UsageError("--set budget=… is not needed.", hint="Use --budget.")
        found[name] = parse_value(value)
    return found


def parse_value(text: str) -> Any:
    """Return a setting's value: JSON where it can be, None for `none`, else the text itself."""
    text = text.strip()
    try:
        if re.fullmatch(r"[-+]?\.\d+", text):  # .5 is a number to people, but not to JSON
            return float(text)
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return None if text.lower() == "none" else text


def check_seed(seed: int) -> None:
    """Refuse a seed below 0."""
    if seed < 0:
        raise UsageError("--seed must be 0 or more.", hint="0 is the default.")


def read_stdin() -> str:
    """Return all of stdin as text; bytes that are not UTF-8 survive as in file names."""
    return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")


def clips_and_questions(
    words: list[str], asked: tuple[str, ...]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Tell clips from questions.

    Parameters
    ----------
    words : list of str
        Positional arguments: CLIP… QUESTION, or only clips when `asked` holds questions.
    asked : tuple of str
        Questions given by -q.

    Returns
    -------
    clips, questions : tuple of Path, tuple of str
        `-` among the clips is replaced by the lines of stdin, `-` as a question by all of stdin.

    Raises
    ------
    UsageError
        If either is missing or empty, or both would be read from stdin.
    """
    clips = list(words) if asked else list(words[:-1])
    questions = list(asked) if asked else list(words[-1:])
    if not words or (not asked and not clips):
        if words and not os.path.exists(words[0]) and words[0] != "-":
            raise UsageError(
                "A clip is missing.", hint='Type: omnidrop ask clip.mp4 "What happens?"'
            )
        raise UsageError(
            "A question is missing." if words else "A clip and a question are missing.",
            hint='Type: omnidrop ask clip.mp4 "What happens?"',
        )
    if not asked and os.path.isfile(words[-1]) and not any(map(os.path.exists, clips)):
        raise UsageError(
            f"{printable(words[-1])!r} is a file, and stands where the question belongs.",
            hint='Type clips first: omnidrop ask clip.mp4 "What happens?"',
        )
    if (clips + questions).count("-") > 1:
        raise UsageError("Stdin can be read once.", hint="Give - once, as a clip or a question.")
    if "-" in questions:
        at = questions.index("-")
        questions[at] = read_stdin().encode("utf-8", "replace").decode()
    if "-" in clips:
        at = clips.index("-")
        listed = [line for line in read_stdin().splitlines() if line.strip()]
        if not listed:
            raise UsageError("Stdin lists no clip.", hint="Send one path per line.")
        clips[at : at + 1] = listed
    questions = [q.strip() for q in questions]
    if not all(questions):
        raise UsageError("The question is empty.", hint='Ask something, like "What happens?"')
    return tuple(Path(c) for c in clips), tuple(dict.fromkeys(questions))
