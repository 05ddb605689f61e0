"""Random: the control that every comparison needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from omnidrop.pruning.method import Entry, EntryView, LayerView, Part, Plan
from omnidrop.pruning.parts.entry_only import EntryMethod


@dataclass(frozen=True)
class Random(EntryMethod):
    """Drops audio and video tokens by chance, before the LLM.

    Based on the random baseline of SEATS (https://arxiv.org/abs/2605.20035), where it is hard to
    beat at high budgets.

    Published: one draw before the LLM, the same tokens in every layer.

    Ours: inside the layers it drops at the schedule of another method, as in
    "random+random@omnidrop".

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    """

    name: ClassVar[str] = "random"
    former: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "schedule": {
            "entry": "random, without a schedule",
            "sigmoid": "random+random@omnidrop",
            "exponential": "random+random@omnidrop with schedule=exponential",
            "step": "random+random@omnidrop with schedule=step",
        }
    }
    needs_host: ClassVar[str] = ""
    draws: ClassVar[bool] = True

    def parts(self) -> frozenset[Part]:
        """Return entry and layers: chance drops anywhere."""
        return frozenset({Part.ENTRY, Part.LAYERS})

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Draw the tokens that enter."""
        return Entry(_draw(plan.total, plan.counts[0], view.generator))

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        """Draw the tokens that stay."""
        return _draw(len(view.tokens), count, view.generator)


def _draw(total: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return `count` of `total` indices, every set equally likely, ascending."""
    return torch.randperm(total, generator=generator)[:count].sort().values
