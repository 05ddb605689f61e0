"""Reads a JSON object field by field: each is checked, and none is ignored."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from omnidrop.errors import did_you_mean
from omnidrop.serving.problems import Refused, wrong


def read_json(body: bytes) -> Any:
    """Read strict JSON.

    Raises
    ------
    Refused
        If it is none: NaN and infinity, lone surrogates, numbers of thousands of digits and
        thousands of levels of nesting included.
    """

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        found = json.loads(body, parse_constant=no_constant)
    except (ValueError, RecursionError) as problem:
        raise wrong(f"The body is not JSON: {problem}.", code="invalid_json") from None
    return found


class Fields:
    """The fields of one object of a request.

    Parameters
    ----------
    found : object
        What stands in the request.
    where : str
        The object's place, such as "messages[0]"; "" for the whole request.

    Raises
    ------
    Refused
        If it is no object.
    """

    def __init__(self, found: Any, where: str = "") -> None:
        if not isinstance(found, Mapping):
            raise wrong(f"{where or 'The request'} must be an object.", where or None)
        self._left = dict(found)
        self.where = where

    def named(self, name: str) -> str:
        """Return the place of a field."""
        return f"{self.where}.{name}" if self.where else name

    def take(self, name: str) -> Any:
        """Return a field, whatever it is; None if it is not there."""
        return self._left.pop(name, None)

    def text(self, name: str, default: str | None = None) -> str | None:
        """Return a text."""
        value = self.take(name)
        return default if value is None else self._is(name, value, str, "a text")

    def needed(self, name: str) -> str:
        """Return a text that must be there."""
        value = self.text(name)
        if value is None:
            raise wrong(f"{self.named(name)} is missing.", self.named(name))
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self.take(name)
        return default if value is None else self._is(name, value, bool, "true or false")

    def whole(self, name: str) -> int | None:
        """Return a whole number."""
        value = self.take(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool):
            raise self._not(name, "a whole number")
        return None if value is None else self._is(name, value, int, "a whole number")

    def number(self, name: str) -> float | None:
        """Return a finite number."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._not(name, "a number")
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise self._not(name, "a finite number")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; one text stands for a list of it."""
        value = self.take(name)
        if value is None:
            return ()
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._not(name, "a list of texts")
        for one in value:
            _check_text(one, self.named(name))
        return tuple(value)

    def refuse(self, name: str, why: str, *, unless: Sequence[Any] = ()) -> None:
        """Refuse a field by name, unless it says what happens anyway.

        Parameters
        ----------
        name : str
        why : str
            The rest of the sentence after the name.
        unless : sequence
            Values, besides null and empty ones, that ask for nothing.
        """
        value = self.take(name)
        if value is None or value in ({}, [], "") or any(_same(value, one) for one in unless):
            return
        raise wrong(f"{self.named(name)} {why}", self.named(name), "unsupported_parameter")

    def end(self, known: Sequence[str] = ()) -> None:
        """Refuse what was not read.

        Parameters
        ----------
        known : sequence of str
            Names that may have been meant.
        """
        for name in self._left:
            raise wrong(
                f"There is no field {self.named(name)!r}. {did_you_mean(name, known)}".strip(),
                self.named(name),
                "unknown_parameter",
            )

    def _is(self, name: str, value: Any, kind: type, what: str) -> Any:
        if not isinstance(value, kind):
            raise self._not(name, what)
        if isinstance(value, str):
            _check_text(value, self.named(name))
        return value

    def _not(self, name: str, what: str) -> Refused:
        return wrong(f"{self.named(name)} must be {what}.", self.named(name), "invalid_type")


def _same(value: Any, other: Any) -> bool:
    """Whether two values are equal, and true is not 1."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def _check_text(value: str, where: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(f"{where} is not text: it has half a character.", where) from None
