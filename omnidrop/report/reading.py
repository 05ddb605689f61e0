"""Answers from their JSON documents, as `Answer.to_dict` writes them."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from omnidrop.report.trace import SCHEMA, Answer


def answer_of(document: Mapping[str, Any]) -> Answer:
    """Return the answer of a document.

    Parameters
    ----------
    document : mapping
        With the schema of this version. Names that an answer does not have are left out, and values
        that an older version did not write have their defaults.

    Raises
    ------
    ValueError
        If it is the document of something else, or lacks what every answer has.
    """
    if document.get("schema") != SCHEMA:
        raise ValueError(f"schema {document.get('schema')!r}, not {SCHEMA!r}")
    try:
        found: Answer = _made(Answer, document)
    except (TypeError, KeyError, AttributeError) as problem:
        raise ValueError(f"not a whole answer: {problem}") from problem
    return found


def is_whole(document: Mapping[str, Any]) -> bool:
    """Return whether a document is that of an answer with its trace."""
    return document.get("schema") == SCHEMA and isinstance(document.get("trace"), Mapping)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _made(kind: Any, value: Any) -> Any:
    """Return a value as its type hint says: dataclasses from mappings, tuples from lists."""
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
    if dataclasses.is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]
        return kind(**{name: _made(hints[name], value[name]) for name in hints if name in value})  # type: ignore[operator]
    if typing.get_origin(kind) is tuple and isinstance(value, Sequence):
        inner = typing.get_args(kind)
        return tuple(_made(inner[0], item) for item in value)
    return value


__all__ = ["answer_of", "is_whole"]
