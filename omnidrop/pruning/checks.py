"""Checks of a method's settings: each refuses what cannot be meant, in one sentence.

Settings arrive from Python and, as JSON values, from the command line, so types are checked too.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
import types
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, Union, get_args, get_origin

from omnidrop.errors import UsageError


def fields(method: Any) -> None:
    """Refuse values that a dataclass's own annotations exclude.

    A field annotated with a `Literal` takes one of its words, `bool` a switch, `int` a whole number
    and `float` a finite number; any of them may be joined with None. A field of any other type is
    left to the method.
    """
    for name, check in _annotated(type(method)):  # type: ignore[arg-type]
        check(name, getattr(method, name))


@cache
def _annotated(kind: type[Any]) -> tuple[tuple[str, Callable[[str, Any], None]], ...]:
    """Return name and check of the fields whose annotation says what they take."""
    found = ((field.name, _check(_hint(kind, field.name))) for field in dataclasses.fields(kind))
    return tuple((name, check) for name, check in found if check is not None)


def _check(hint: Any) -> Callable[[str, Any], None] | None:
    """Return the check that an annotation asks for; None where it asks for none."""
    words = _words(hint)
    if words:
        return partial(one_of, known=words)
    kinds = set(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else {hint}
    plain = {bool: switch, int: whole, float: number}
    if len(kinds - {type(None)}) != 1:
        return None
    check = plain.get(kinds.difference({type(None)}).pop())
    if check is None or type(None) not in kinds:
        return check
    return lambda name, value: None if value is None else check(name, value)


def _hint(kind: type, name: str) -> Any:
    """Return the annotation of a field; None where it names something its module does not know."""
    owner = next(c for c in kind.__mro__ if name in inspect.get_annotations(c))
    hint = inspect.get_annotations(owner)[name]
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, vars(sys.modules[owner.__module__]))  # as typing.get_type_hints does
    except NameError:  # imported for the type checker alone
        return None


def _words(hint: Any) -> tuple[Any, ...]:
    """Return the values of a `Literal`, or of a union of such and None; () for anything else."""
    if hint is type(None):
        return (None,)
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) not in (Union, types.UnionType):
        return ()
    parts = [_words(part) for part in get_args(hint)]
    if not all(parts) or parts.count((None,)) == len(parts):
        return ()
    return tuple(word for part in parts for word in part)


def one_of(field: str, value: object, known: tuple[Any, ...]) -> None:
    """Refuse a value that is not among the known ones."""
    if value not in known:
        words = ", ".join("none" if word is None else str(word) for word in known)
        raise UsageError(f"Unknown {field} {value!r}.", hint=f"Use {words}.")


def number(field: str, value: Any, *, low: float = -math.inf, high: float = math.inf) -> None:
    """Refuse what is not a finite number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"{field} must be a number, not {value!r}.")
    if not low <= value <= high:
        wanted = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
        raise UsageError(f"{field} cannot be {value!r}.", hint=f"Give {wanted}.")


def whole(field: str, value: Any, *, low: float = -math.inf) -> None:
    """Refuse what is not a whole number of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{field} must be a whole number, not {value!r}.")
    number(field, value, low=low)


def switch(field: str, value: Any) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise UsageError(f"{field} must be true or false, not {value!r}.")


def shares(field: str, value: Any) -> tuple[float, ...]:
    """Return ascending shares of the depth as a tuple; refuse anything else."""
    if not isinstance(value, (list, tuple)) or not value:
        raise UsageError(f"{field} must be a list of shares of the depth, not {value!r}.")
    for share in value:
        number(field, share, low=0, high=1)
    if sorted(value) != list(value):
        raise UsageError(f"{field} {list(value)} must ascend.", hint="Give the first one first.")
    return tuple(value)
