"""Which tokens a model drops if nobody says: a method, a budget, and why these.

A family states one for each of its models (`omnidrop.models.family.Family.recommended`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recommended:
    """A model's default method and budget, with the source of that choice.

    Attributes
    ----------
    method : str
        Name of the method.
    budget : float
        Share of audio and video tokens kept, mean over the layers.
    source : str
        Why: a measurement, a paper, or a reason.
    settings : mapping
        Settings that differ from the method's defaults, at any budget.
    presets : mapping of float to str
        Budgets for which a preset of the method is used as it stands.
    always : bool
        The model was trained for this method, so that it also runs where it saves little.
    """

    method: str
    budget: float
    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[float, str] = field(default_factory=dict)
    always: bool = False


#: For models that nobody has measured. A method that selects before the decoder cannot select in
#: the wrong layer, whatever the depth at which a model reads its clip, and half the tokens leave
#: room for a model that needs more of them than those that were measured. DASH is the best of these
#: methods at 50 % on the demo model: 96.2 % right where all tokens give 96.5, and no loss on short
#: events. On the lab model it loses 7.5 points there, as random tokens do, and omnidrop-auto 1.7,
#: but only because that empties the layers after those that read: without that it loses 5.9
#: (docs/results.md). Where a model reads is not known of one that nobody has measured.
SAFE = Recommended(
    method="dash",
    budget=0.5,
    source="this model was not measured; DASH selects before the decoder, so in no wrong layer",
)
