"""The calibration that a checkpoint may come with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnidrop.errors import ModelError
from omnidrop.models.calibration import NAME, SCHEMA, Curve, read_calibration
from omnidrop.models.locations import demo_folder

GOOD = {
    "schema": SCHEMA,
    "source": "calibrated on a test",
    "answers": {"scale": 0.5, "shift": 0.1},
    "choices": {"scale": 1, "shift": 0},
    "fitting_mass": 0.01,
    "made": {"by": "hand"},
}


def written(folder: Path, document: Any) -> Path:
    (folder / NAME).write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_a_checkpoint_without_one(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None


def test_it_is_read(tmp_path: Path) -> None:
    found = read_calibration(written(tmp_path, GOOD))
    assert found is not None
    assert (found.source, found.fitting_mass) == ("calibrated on a test", 0.01)
    assert (found.answers, found.choices) == (Curve(0.5, 0.1), Curve(1.0, 0.0))
    assert found.covers("seats", 0.01)


def test_it_names_the_methods_that_it_holds_for(tmp_path: Path) -> None:
    found = read_calibration(written(tmp_path, GOOD | {"methods": {"none": 1, "seats": 0.2}}))
    assert found is not None
    assert found.covers("seats", 0.2)
    assert not found.covers("seats", 0.1)
    assert not found.covers("omnidrop", 0.5)


def test_the_demos_holds_for_what_it_was_fitted_with() -> None:
    found = read_calibration(demo_folder())
    assert found is not None
    assert found.methods == {"none": 1.0, "omnidrop-auto": 0.1}


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "omnidrop.calibration/9"},
        {"source": None},
        {"answers": None},
        {"answers": {"scale": 0.5}},
        {"answers": {"scale": 0, "shift": 0}},
        {"choices": {"scale": "1", "shift": 0}},
        {"choices": {"scale": True, "shift": 0}},
        {"fitting_mass": float("nan")},
        {"methods": ["none"]},
        {"methods": {"none": "all"}},
    ],
)
def test_a_bad_one_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=NAME):
        read_calibration(written(tmp_path, GOOD | change))


def test_curves_rise_and_stay_inside() -> None:
    curve = Curve(0.4, 0.6)
    values = [curve(p / 20) for p in range(21)]
    assert values == sorted(values)
    assert 0 <= values[0] < values[-1] <= 1
    assert Curve()(0.3) == pytest.approx(0.3)
    assert 0 <= Curve(100.0, -500.0)(0.0) <= Curve(100.0, 500.0)(1.0) <= 1


def test_the_demo_models_own() -> None:
    found = read_calibration(demo_folder())
    assert found is not None
    assert found.source == "calibrated on AVSynth"
    assert found.answers(0.999) < 0.999  # it is surer than it is right
    assert found.fitting_mass == 1e-3
