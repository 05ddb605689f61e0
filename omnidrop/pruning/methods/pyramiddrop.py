"""PyramidDrop: the same share goes at each quarter of the depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import LayerView, Method, Plan
from omnidrop.pruning.parts.select import top
from omnidrop.tokens import TokenMap


@dataclass(frozen=True)
class PyramidDrop(Method):
    """Keeps the same share at a quarter, half and three quarters of the depth, by the last token.

    Based on PyramidDrop (arXiv 2410.17247; public code Cooperx521/PyramidDrop).

    The last instruction token is the last token of the prompt, as in the public code at inference:
    for a chat model the end of its template, from which the answer is written. Its attention is
    that of the layer just run, averaged over heads (the public code asks the next layer's
    projections; ours costs nothing beyond one row). Audio and video are one pool (ours). After i
    stages `floor(keep^i · N)` tokens are left, as in the public code.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N. As the layers before the first
        stage see everything, it cannot go under the first stage's share of the depth.
    cache : {"own", "cut"}, default "own"
        Caches of earlier layers: each layer's own, or cut to the survivors.
    keep_share : float, optional
        Share kept at each stage (paper: 0.5). Solved for the budget if left out; if given, it is
        taken as it stands, and a plan whose mean is not the budget says so.
    stages : tuple of float, default (0.25, 0.5, 0.75)
        Where tokens are dropped, as shares of the depth (paper).
    """

    name: ClassVar[str] = "pyramiddrop"
    needs_host: ClassVar[str] = ""

    keep_share: float | None = None
    stages: Sequence[float] = (0.25, 0.5, 0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_share is not None:
            checks.number("keep_share", self.keep_share, low=0, high=1)
        object.__setattr__(self, "stages", checks.shares("stages", self.stages))

    @classmethod
    def presets(cls) -> dict[str, PyramidDrop]:
        """Return the paper's setting; its mean is (1 + 1/2 + 1/4 + 1/8) / 4 = 0.469."""
        return {"pyramiddrop-paper": cls(budget=0.46875, keep_share=0.5)}

    @classmethod
    def tunable(cls) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        starts = (0.0, 0.05, 0.1, 0.15, 0.25, 0.4)
        return {"stages": tuple((s, s + 0.25, s + 0.5) for s in starts)}

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Solve the share that every stage keeps, or take the one that was given."""
        path = schedules.staged_path(self.stages)
        if self.keep_share is not None:
            curve = path[0].toward(path[1], 1.0 - self.keep_share)
            return schedules.fixed(curve, len(tokens), layers, self.budget)
        return schedules.solve(self.budget, len(tokens), layers, path, settle=schedules.TOLERANCE)

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        """Keep the tokens that the last token of the prompt attends to most."""
        return top(view.attention("last"), count)
