"""How sure an answer is: its probability, what that means, and what does not fit.

The probability of a generated answer is the product of its tokens' probabilities, the end of the
turn included. That of a choice is its share among the choices. A model that comes with a
calibration turns either into how often such answers are right; without one they are the model's
own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omnidrop.engine.decode import Generated
from omnidrop.models.calibration import Calibration
from omnidrop.notices import UNFITTING
from omnidrop.report.trace import EMPTY, Choice

OWN = "the model's own"

#: Answers of more tokens have no probability: there are so many ways to say the same thing that the
#: probability of one of them says nothing about whether it is right.
MOST_TOKENS = 16

#: Probability of all choices together below which none fits, for a model without a calibration. A
#: model that would rather answer in a sentence gives even the right word little of it.
FITTING_MASS = 1e-6


@dataclass(frozen=True)
class Sureness:
    """How sure an answer is.

    Attributes
    ----------
    probability : float or None
    source : str
    choice_mass : float or None
        As in `omnidrop.report.trace.Answer`.
    notices : tuple of str
    """

    probability: float | None
    source: str
    choice_mass: float | None
    notices: tuple[str, ...]


def judge(
    made: Generated,
    choices: Sequence[Choice],
    calibration: Calibration | None,
    *,
    fitted: bool = True,
) -> Sureness:
    """Say how sure an answer is.

    Parameters
    ----------
    made : Generated
        What was generated; of a choice, only its text.
    choices : sequence of Choice
        Most probable first; empty if the answer was generated.
    calibration : Calibration or None
        The model's.
    fitted : bool
        Whether its curves hold for this answer; if not, the probability is the model's own.
    """
    curves = calibration if fitted else None
    source = curves.source if curves is not None else OWN
    if choices:
        share = choices[0].probability
        mass = min(1.0, math.fsum(math.exp(min(0.0, choice.logprob)) for choice in choices))
        known = curves.choices(share) if curves is not None else share
        return Sureness(known, source, mass, tuple(_none_fits(mass, calibration)))
    notices = () if made.text.strip() else (EMPTY,)
    if made.logprob is None or len(made.ids) > MOST_TOKENS:
        return Sureness(None, "", None, notices)
    own = math.exp(min(0.0, made.logprob))  # rounding may lift it above 0
    known = curves.answers(own) if curves is not None else own
    return Sureness(known, source, None, notices)


def _none_fits(mass: float, calibration: Calibration | None) -> Iterator[str]:
    least = FITTING_MASS if calibration is None else calibration.fitting_mass
    if mass < least:
        percent = f"{100 * mass:.2g}" if mass >= 1e-6 else "less than 0.0001"
        yield f"{UNFITTING}: together they have {percent} % of the probability."
