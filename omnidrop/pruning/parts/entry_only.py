"""What methods that drop before the LLM have in common: one count throughout, no question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from omnidrop.pruning import schedules
from omnidrop.pruning.method import LayerView, Method, Plan
from omnidrop.pruning.parts.select import spread_by_chunk
from omnidrop.tokens import TokenMap


@dataclass(frozen=True)
class EntryMethod(Method):
    """Base of methods that choose before the first layer and leave the layers alone."""

    question_free: ClassVar[bool] = True
    needs_host: ClassVar[str] = "tokens are counted by chunk"

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Keep one number of tokens throughout."""
        return schedules.solve_flat(self.budget, len(tokens), layers)

    def keep(self, view: LayerView, count: int) -> torch.Tensor:
        """Thin the survivors evenly (only where few tokens need it for the budget)."""
        return spread_by_chunk(view.tokens, count)
