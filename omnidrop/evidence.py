"""How a model's attention tells where an answer came from, and how often it was right about that.

A model's folder may hold a reading in `evidence.json`, and so may a preset file under `evidence`;
`omnidrop calibrate --evidence` writes one. Moments are reported only for methods and budgets at
which the reading was measured to be better than chance.

    {"schema": "omnidrop.evidence/1", "layers": [8], "rows": "last", "heads": [0, 1],
     "correction": "none", "source": "AVSynth, ...",
     "rates": [{"method": "omnidrop", "budget": 0.3, "questions": 200, "hits": 190,
                "low": 0.91, "high": 0.97, "chance": 0.5}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from omnidrop.errors import UsageError
from omnidrop.files import read_small_json

SCHEMA = "omnidrop.evidence/1"

#: Name of the file in a model's folder.
FILE = "evidence.json"

#: Text rows whose attention is read: the last token of the prompt, or the user's words.
Rows = Literal["last", "question"]

#: What is done against attention that every question pays. "neutral": the attention of the text
#: row between clip and question, which has not seen the question, is subtracted. "per token": a
#: chunk counts by the mean of its surviving tokens instead of their sum.
Correction = Literal["none", "neutral", "per token"]


@dataclass(frozen=True)
class Rate:
    """How often the strongest moment was right, with one method at one budget.

    Attributes
    ----------
    method : str
    budget : float
    questions : int
        Questions with known times of their evidence.
    hits : int
        Those whose strongest moment overlaps the evidence.
    low, high : float
        95 % interval of the share of hits (Wilson).
    chance : float
        Share of hits of a moment of the same length at a random place of the same clip.
    """

    method: str
    budget: float
    questions: int
    hits: int
    low: float
    high: float
    chance: float

    @property
    def share(self) -> float:
        """Share of hits."""
        return self.hits / self.questions if self.questions else 0.0

    @property
    def above_chance(self) -> bool:
        """Whether the whole interval lies above chance."""
        return self.low > self.chance


@dataclass(frozen=True)
class EvidenceReading:
    """Which attention is read to find the moments that an answer came from.

    Attributes
    ----------
    layers : tuple of int
        Decoder layers whose attention is averaged, from 0.
    rows : {"last", "question"}
        Text rows whose attention it is.
    heads : tuple of int
        Query heads that are averaged; empty for all.
    correction : {"none", "neutral", "per token"}
        See `Correction`.
    rates : tuple of Rate
        How often it was right; empty if that was not measured.
    source : str
        Where the choice and the rates come from.
    """

    layers: tuple[int, ...]
    rows: Rows = "last"
    heads: tuple[int, ...] = ()
    correction: Correction = "none"
    rates: tuple[Rate, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        for name, numbers in (("layers", self.layers), ("heads", self.heads)):
            if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
                raise UsageError(f"The {name} of a reading must be whole numbers, 0 or more.")
            if len(set(numbers)) < len(numbers):
                raise UsageError(f"The {name} of a reading are named twice.")
        if not self.layers:
            raise UsageError("A reading of evidence names no layer.")
        for name, value, known in (
            ("rows", self.rows, get_args(Rows)),
            ("correction", self.correction, get_args(Correction)),
        ):
            if value not in known:
                raise UsageError(
                    f"A reading has no {name} {value!r}.", hint=f"Known: {', '.join(known)}."
                )

    @classmethod
    def usual(cls, layers: int) -> Self:
        """Return what is read where nothing was measured: the question's words at half depth.

        Parameters
        ----------
        layers : int
            Decoder layers of the model.
        """
        return cls((layers // 2,), "question")

    def rate(self, method: str, budget: float) -> Rate | None:
        """Return the rate that is known to hold for a method at a budget, or None.

        Between two measured budgets it is the worse of both; above the largest it is that of the
        largest; below the smallest nothing is known.
        """
        mine = sorted((r for r in self.rates if r.method == method), key=lambda r: r.budget)
        below = [r for r in mine if r.budget <= budget + 1e-6]
        above = [r for r in mine if r.budget >= budget - 1e-6]
        if not below:
            return None
        return min((below[-1], *above[:1]), key=lambda r: r.low - r.chance)

    def above_chance(self, method: str, budget: float) -> bool:
        """Return whether moments may be reported for a method at a budget."""
        rate = self.rate(method, budget)
        return rate is not None and rate.above_chance

    def check_fits(self, layers: int, heads: int) -> None:
        """Raise UsageError if a model of so many layers and query heads has not what is read."""
        for what, wanted, count in (("layer", self.layers, layers), ("head", self.heads, heads)):
            if wanted and max(wanted) >= count:
                raise UsageError(
                    f"The reading of evidence is of {what} {max(wanted)}, counted from 0, and the "
                    f"model has {count}.",
                    hint="It was made for another model; make one: omnidrop calibrate --evidence.",
                )

    def with_rates(self, rates: tuple[Rate, ...], source: str) -> EvidenceReading:
        """Return the reading with how often it was right."""
        return replace(self, rates=rates, source=source)

    def document(self) -> dict[str, Any]:
        """Return what a file holds."""
        found = asdict(self)
        return {"schema": SCHEMA, **found}


def reading_of(document: object) -> EvidenceReading:
    """Return the reading that a file's document holds.

    Raises
    ------
    UsageError
        If it is none, or holds something unknown.
    """
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        raise UsageError(f"This is no reading of evidence: its schema is not {SCHEMA}.")
    fields = {key: value for key, value in document.items() if key != "schema"}
    try:
        rates = tuple(Rate(**rate) for rate in fields.pop("rates", ()))
        layers, heads = (tuple(fields.pop(name, ())) for name in ("layers", "heads"))
        return EvidenceReading(layers, heads=heads, rates=rates, **fields)
    except TypeError as problem:
        raise UsageError(f"The reading of evidence is not valid: {problem}.") from problem


def read_reading(path: Path) -> EvidenceReading | None:
    """Read a reading's file; None if there is none.

    Raises
    ------
    UsageError
        If there is one and it is not valid.
    """
    try:
        found = read_small_json(path, "reading of evidence")
    except UsageError as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            return None
        raise
    try:
        return reading_of(found)
    except UsageError as problem:
        raise UsageError(problem.what, path=path, hint=problem.hint) from problem
