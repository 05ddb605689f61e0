"""Preset files: a method's settings in JSON, as `omnidrop calibrate` writes them.

    {"schema": "omnidrop.preset/1", "method": "omnidrop", "budgets": [0.2],
     "fields": {"t_mid": 0.4, "diversity": 0.1}, "made": {...}}

`fields` holds what differs from the method's defaults; `budgets` are those it was made for, the
first of them the one it stands for when nobody says another; `made` says where it came from and is
not read. `evidence`, where there is one, says how the model's attention tells where an answer came
from (`omnidrop.evidence`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnidrop.errors import UsageError, printable
from omnidrop.evidence import EvidenceReading, reading_of
from omnidrop.files import read_small_json
from omnidrop.pruning.method import Method
from omnidrop.pruning.registry import get_method

SCHEMA = "omnidrop.preset/1"

_KEYS = ("schema", "method", "budgets", "fields", "made", "evidence")


@dataclass(frozen=True)
class Preset:
    """A method's settings, and the budgets they were made for.

    Attributes
    ----------
    method : str
        Its name.
    budgets : tuple of float
        At least one.
    fields : mapping
        Settings that differ from the defaults; never the budget.
    made : mapping
        Where they came from.
    evidence : EvidenceReading or None
        Of the model that the preset was made for.
    """

    method: str
    budgets: tuple[float, ...]
    fields: Mapping[str, Any]
    made: Mapping[str, Any] = field(default_factory=dict)
    evidence: EvidenceReading | None = None

    def at(self, budget: float | None = None, **changes: Any) -> Method:
        """Return the method at a budget; None takes the preset's first."""
        chosen = self.budgets[0] if budget is None else budget
        return get_method(self.method, **{**self.fields, "budget": chosen, **changes})

    def document(self) -> dict[str, Any]:
        """Return what a preset file holds."""
        reading = {} if self.evidence is None else {"evidence": self.evidence.document()}
        return {
            "schema": SCHEMA,
            "method": self.method,
            "budgets": list(self.budgets),
            "fields": dict(self.fields),
            "made": dict(self.made),
            **reading,
        }


def read_preset(path: Path) -> Preset:
    """Read a preset file.

    Raises
    ------
    UsageError
        If it cannot be read, is no preset, holds something unknown, or a value that the method
        refuses.
    """
    found = read_small_json(
        path, "preset", hint="Check the path, or name a preset that `omnidrop models` lists."
    )
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise UsageError(
            f"This is no preset: its schema is not {SCHEMA}.",
            path=path,
            hint="`omnidrop calibrate` writes presets.",
        )
    for key in found:
        if key not in _KEYS:
            raise UsageError(
                f"A preset has no {printable(key)!r}.",
                path=path,
                hint=f"Known: {', '.join(_KEYS)}.",
            )
    method, budgets, fields = found.get("method"), found.get("budgets"), found.get("fields")
    if not isinstance(method, str):
        raise UsageError("The preset names no method.", path=path)
    if not isinstance(budgets, list) or not budgets:
        raise UsageError("The preset gives no list of budgets.", path=path)
    if not isinstance(fields, dict) or "budget" in fields:
        raise UsageError(
            "The preset's fields must be an object without a budget.",
            path=path,
            hint="Budgets stand in `budgets`.",
        )
    made = found.get("made")
    try:
        reading = None if found.get("evidence") is None else reading_of(found["evidence"])
        preset = Preset(
            method, tuple(budgets), fields, made if isinstance(made, dict) else {}, reading
        )
        for budget in budgets:
            preset.at(budget)
    except UsageError as problem:
        raise UsageError(problem.what, path=path, hint=problem.hint) from problem
    return preset
