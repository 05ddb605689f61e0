"""Changes one key of a TOML file and leaves the rest of its text as it is, comments included.

Every change is checked: the new text must read as the old one with that key changed. Where it does
not, as with a key inside an inline table, the file is left to its owner.
"""

from __future__ import annotations

import copy
import re
import tomllib
from typing import Any

from omnidrop.errors import UsageError

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$")


def set_key(text: str, table: str, key: str, literal: str) -> str:
    """Return the text with `key = literal` in a table; "" is the top.

    Raises
    ------
    UsageError
        If that cannot be done line by line.
    """
    lines = _lines(text)
    found = _span(lines, table, key)
    if found is not None:
        start, end = found
        lines[start:end] = [f"{key} = {literal}{_comment(lines[start:end])}\n"]
    else:
        _insert(lines, table, f"{key} = {literal}\n")
    return _checked(text, "".join(lines), table, key, tomllib.loads(f"x = {literal}")["x"])


def remove_key(text: str, table: str, key: str) -> str:
    """Return the text without a key of a table.

    Raises
    ------
    UsageError
        If that cannot be done line by line.
    """
    lines = _lines(text)
    found = _span(lines, table, key)
    if found is not None:
        del lines[found[0] : found[1]]
    return _checked(text, "".join(lines), table, key, None)


def _lines(text: str) -> list[str]:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return lines


def _section(lines: list[str], table: str) -> tuple[int, int] | None:
    """Return where a table's lines begin and end, its header left out."""
    headers = [
        (number, found[1].strip("\"'"))
        for number, line in enumerate(lines)
        if (found := _HEADER.match(line.rstrip("\r\n")))
    ]
    ends = [number for number, _ in headers[1:]] + [len(lines)]
    if not table:
        return 0, headers[0][0] if headers else len(lines)
    for (start, name), end in zip(headers, ends, strict=False):
        if name == table:
            return start + 1, end
    return None


def _span(lines: list[str], table: str, key: str) -> tuple[int, int] | None:
    """Return the lines of a key and its value, which may go over several; None if not there."""
    section = _section(lines, table)
    if section is None:
        return None
    name = key.replace("-", "[-_]")
    for start in range(*section):
        if not re.match(rf"\s*([\"']?){name}\1\s*=", lines[start]):
            continue
        for end in range(start + 1, section[1] + 1):
            if _parses("".join(lines[start:end])):
                return start, end
    return None


def _comment(lines: list[str]) -> str:
    """Return the comment at the end of a value in one line, with the spaces before it."""
    if len(lines) != 1:
        return ""
    line = lines[0].rstrip("\r\n")
    for found in re.finditer(r"\s*#", line):
        if _parses(line[: found.start()]):
            return line[found.start() :]
    return ""


def _insert(lines: list[str], table: str, line: str) -> None:
    """Put a line at the end of a table, which is made if it is not there."""
    section = _section(lines, table)
    if section is None:
        while lines and not lines[-1].strip():
            lines.pop()
        lines += ["\n"] * bool(lines) + [f"[{table}]\n", line]
        return
    start, end = section
    at = end
    while at > start and not lines[at - 1].strip():
        at -= 1
    if not table and at > start and lines[at - 1].lstrip().startswith("#") and end < len(lines):
        at = end  # a comment just above the first table is that table's
        while at > start and lines[at - 1].lstrip().startswith("#"):
            at -= 1
        lines[at:at] = [line, "\n"]
        return
    if at > start and lines[at - 1].lstrip().startswith("#"):
        line = "\n" + line  # the comment is about what is above it, or about the file
    lines.insert(at, line)
    if end < len(lines) - 1 and lines[at + 1].strip():
        lines.insert(at + 1, "\n")


def _parses(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _checked(old: str, new: str, table: str, key: str, value: Any) -> str:
    wanted = copy.deepcopy(tomllib.loads(old))
    inside = wanted.setdefault(table, {}) if table else wanted
    for name in [name for name in inside if name.replace("_", "-") == key]:
        del inside[name]
    if value is not None:
        inside[key] = value
    if not _parses(new) or tomllib.loads(new) != wanted:
        raise UsageError(
            f"The file is written in a way that keeps {key!r} from being changed here.",
            hint="Open it in an editor: omnidrop config path",
        )
    return new
