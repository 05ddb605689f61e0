"""How often a model is right when it gives an answer some probability; a file beside its weights.

A model's own probability of its answer is not how often such answers are right. A checkpoint may
come with a `calibration.json` that says how often, fitted on questions with known answers
(`omnidrop.evaluation.reliability`):

    {"schema": "omnidrop.calibration/1", "source": "calibrated on AVSynth",
     "answers": {"scale": 0.6, "shift": 0.1}, "choices": {"scale": 0.8, "shift": 0.0},
     "fitting_mass": 0.01, "methods": {"none": 1.0, "omnidrop-auto": 0.1}, "made": {...}}

`answers` is for generated answers, `choices` for the share of the best of given choices. `methods`
has the smallest budget of each method that it was fitted with: where a method loses more of the
answers than those did, the curve would promise too much. Without it the curves are for all methods.
`made` says where it came from and is not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnidrop.errors import ModelError

SCHEMA = "omnidrop.calibration/1"
NAME = "calibration.json"

AGAIN = "Download the model again, or remove this file: answers then have the model's own odds."

#: Probabilities are kept this far from 0 and 1, where log-odds are not finite.
_EDGE = 1e-9


@dataclass(frozen=True)
class Curve:
    """A rising curve from the model's probability to how often it is right (Platt scaling).

    The log-odds of being right are `scale` times the log-odds of the model's own probability, plus
    `shift`.

    Parameters
    ----------
    scale : float
        Above 0.
    shift : float
    """

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, probability: float) -> float:
        """Return how often answers of this probability are right, 0 to 1."""
        inside = min(max(probability, _EDGE), 1 - _EDGE)
        odds = self.scale * math.log(inside / (1 - inside)) + self.shift
        return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


@dataclass(frozen=True)
class Calibration:
    """What a model's probabilities mean.

    Attributes
    ----------
    source : str
        Like "calibrated on AVSynth".
    answers : Curve
        Of generated answers.
    choices : Curve
        Of the best of given choices, from its share among them.
    fitting_mass : float
        Probability of all given choices together below which none of them fits.
    methods : Mapping of str to float, optional
        Methods with which the curves were fitted, with the smallest budget of each; None for all.
    """

    source: str
    answers: Curve
    choices: Curve
    fitting_mass: float
    methods: Mapping[str, float] | None = None

    def covers(self, method: str, budget: float) -> bool:
        """Return whether the curves hold for a method at a budget."""
        if self.methods is None:
            return True
        least = self.methods.get(method)
        return least is not None and budget >= least - 1e-9


def read_calibration(folder: Path) -> Calibration | None:
    """Return a checkpoint's calibration, or None if it has none.

    Raises
    ------
    ModelError
        If the file exists and is not valid.
    """
    from omnidrop.models.locations import read_json

    path = folder / NAME
    if not path.is_file():
        return None
    found = read_json(path)
    source = found.get("source")
    if found.get("schema") != SCHEMA or not isinstance(source, str):
        raise ModelError(f"This is no {SCHEMA}.", path=path, hint=AGAIN)
    return Calibration(
        source=source,
        answers=_curve(found, "answers", path),
        choices=_curve(found, "choices", path),
        fitting_mass=_number(found, "fitting_mass", path),
        methods=_methods(found, path),
    )


def _methods(found: Mapping[str, Any], path: Path) -> dict[str, float] | None:
    if "methods" not in found:
        return None
    part = found["methods"]
    if not isinstance(part, Mapping):
        raise ModelError("The calibration's methods are no table.", path=path, hint=AGAIN)
    return {str(name): _number(part, name, path) for name in part}


def _curve(found: Mapping[str, Any], name: str, path: Path) -> Curve:
    part = found.get(name)
    if not isinstance(part, Mapping):
        raise ModelError(f"The calibration has no {name}.", path=path, hint=AGAIN)
    curve = Curve(_number(part, "scale", path), _number(part, "shift", path))
    if curve.scale <= 0:
        raise ModelError(f"The scale of {name} must be above 0.", path=path, hint=AGAIN)
    return curve


def _number(found: Mapping[str, Any], name: str, path: Path) -> float:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ModelError(f"The calibration's {name} is no number.", path=path, hint=AGAIN)
    return float(value)
