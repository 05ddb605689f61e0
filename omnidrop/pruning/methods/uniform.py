"""Uniform: even spacing in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from omnidrop.pruning.method import Entry, EntryView, Part, Plan
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.select import spread_by_chunk


@dataclass(frozen=True)
class Uniform(EntryMethod):
    """Keeps evenly spaced audio and video tokens of every chunk, chosen before the LLM.

    Based on the uniform baseline of SEATS (https://arxiv.org/abs/2605.20035).

    Published: even spacing.

    Ours: each chunk's audio and video keep the same share, rounded so that the sum is exact.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    """

    name: ClassVar[str] = "uniform"

    def parts(self) -> frozenset[Part]:
        """Return entry and layers: even spacing thins any survivors."""
        return frozenset({Part.ENTRY, Part.LAYERS})

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Space the tokens that enter evenly inside every chunk."""
        return Entry(spread_by_chunk(view.tokens, plan.counts[0]))
