"""A reading of evidence: what it may be, which rate holds where, and its file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnidrop.errors import UsageError
from omnidrop.evidence import EvidenceReading, Rate, read_reading, reading_of


def rate(method: str, budget: float, low: float, chance: float = 0.5) -> Rate:
    return Rate(method, budget, 100, 90, low, 0.99, chance)


READING = EvidenceReading(
    (8,),
    "last",
    (0, 1),
    rates=(
        rate("none", 1.0, 0.9),
        rate("seats", 0.3, 0.8),
        rate("seats", 0.1, 0.4),
        rate("fastv", 0.3, 0.5),
    ),
    source="a test",
)


@pytest.mark.parametrize(
    ("method", "budget", "shown"),
    [
        ("none", 1.0, True),
        ("seats", 0.3, True),
        ("seats", 0.8, True),  # above the largest measured
        ("seats", 0.2, False),  # between two, the worse of both
        ("seats", 0.1, False),
        ("seats", 0.05, False),  # below the smallest nothing is known
        ("fastv", 0.3, False),  # its interval touches chance
        ("dycoke", 0.3, False),
    ],
)
def test_moments_are_shown_only_above_chance(method: str, budget: float, shown: bool) -> None:
    assert READING.above_chance(method, budget) is shown


def test_a_reading_that_was_not_measured_shows_nothing() -> None:
    usual = EvidenceReading.usual(16)
    assert (usual.layers, usual.rows, usual.heads) == ((8,), "question", ())
    assert not usual.above_chance("none", 1.0)


def test_a_file_gives_back_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps(READING.document()))
    assert read_reading(path) == READING
    assert read_reading(tmp_path / "none.json") is None


def test_a_file_of_nothing_is_not_a_file_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    path.write_text("null")
    with pytest.raises(UsageError, match="its schema is not") as problem:
        read_reading(path)
    assert problem.value.path == path
    assert read_reading(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "omnidrop.preset/1"}, "its schema is not"),
        ({"layers": []}, "no layer"),
        ({"layers": [1, 1]}, "twice"),
        ({"heads": [-1]}, "whole numbers"),
        ({"heads": [True]}, "whole numbers"),
        ({"rows": "first"}, "no rows 'first'"),
        ({"correction": "some"}, "no correction 'some'"),
        ({"further": 1}, "further"),
        ({"rates": [{"method": "none"}]}, "missing"),
        ({"layers": 8}, "not valid"),
    ],
)
def test_a_file_that_is_wrong_says_what(tmp_path: Path, change: dict, said: str) -> None:
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps(READING.document() | change))
    with pytest.raises(UsageError, match=said) as problem:
        read_reading(path)
    assert problem.value.path == path


def test_what_is_no_object_is_no_reading() -> None:
    with pytest.raises(UsageError, match="no reading"):
        reading_of([1])


def test_a_reading_of_another_model_is_refused() -> None:
    READING.check_fits(16, 3)
    with pytest.raises(UsageError, match="layer 8, counted from 0, and the model has 8"):
        READING.check_fits(8, 3)
    with pytest.raises(UsageError, match="head 1"):
        READING.check_fits(16, 1)
