"""Random dropping: the control that every comparison needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import Entry, EntryView, LayerView, Method, Plan
from omnidrop.tokens import TokenMap


@dataclass(frozen=True)
class Random(Method):
    """Drops audio and video tokens by chance, before the LLM or layer by layer.

    Based on the control of SEATS (arXiv 2605.20035), where it is hard to beat at high budgets.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    cache : {"own", "cut"}, default "own"
        Caches of earlier layers: each layer's own, or cut to the survivors.
    schedule : {"entry", "sigmoid", "exponential", "step"}, default "entry"
        "entry" draws once before the LLM and keeps the same tokens in every layer; the others draw
        at entry and after each layer, in the numbers OmniDrop would keep.
    """

    name: ClassVar[str] = "random"
    needs_host: ClassVar[str] = ""
    question_free: ClassVar[bool] = True

    schedule: Literal["entry"] | schedules.Shape = "entry"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("schedule", self.schedule, ("entry", *schedules.SHAPES))

    @classmethod
    def tunable(cls) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {"schedule": ("entry", *schedules.SHAPES)}

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Keep one number of tokens throughout, or OmniDrop's numbers."""
        if self.schedule == "entry":
            return schedules.solve_flat(self.budget, len(tokens), layers)
        path = schedules.omnidrop_path(self.budget, shape=self.schedule)
        return schedules.solve(self.budget, len(tokens), layers, path)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Draw the tokens that enter."""
        return Entry(_draw(plan.total, plan.counts[0], view.generator))

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        """Draw the tokens that go on."""
        return _draw(len(view.tokens), count, view.generator)


def _draw(total: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Return `count` of `total` indices, every set equally likely, ascending."""
    return torch.randperm(total, generator=generator)[:count].sort().values
