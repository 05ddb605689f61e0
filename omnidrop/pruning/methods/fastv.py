"""FastV: look for two layers, then drop once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from omnidrop.errors import UsageError
from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import LayerView, Method, Plan
from omnidrop.pruning.parts.select import top
from omnidrop.tokens import TokenMap


@dataclass(frozen=True)
class FastV(Method):
    """Drops once, after the first layers, what the last text token attends to least.

    Based on FastV (arXiv 2403.06764).

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N. The share kept after the drop is
        solved from it; as the first layers see everything, it cannot go under `after` / L.
    cache : {"own", "cut"}, default "own"
        Caches of earlier layers: each layer's own, or cut to the survivors.
    after : int, default 2
        How many layers see every token (paper: K = 2).
    """

    name: ClassVar[str] = "fastv"
    needs_host: ClassVar[str] = ""

    after: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("after", self.after, low=1)

    @classmethod
    def tunable(cls) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {"after": (1, 2, 3, 4, 6, 8)}

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Solve the one share that is kept after the drop."""
        if self.after >= layers:
            raise UsageError(
                f"FastV cannot drop after {self.after} layers of {layers}.",
                hint=f"Give at most {layers - 1}.",
            )
        turn = self.after / layers
        path = (
            schedules.Curve("step", p_final=0.0, t_mid=turn),
            schedules.Curve("step", p_final=1.0, t_mid=turn),
        )
        return schedules.solve(self.budget, len(tokens), layers, path, settle=schedules.TOLERANCE)

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        """Keep the tokens the last text token attends to most."""
        return top(view.attention("last"), count)
