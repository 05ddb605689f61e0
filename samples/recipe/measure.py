"""Greedy answers of the demo model to many questions about a clip in one forward pass.

The answers equal those of `generate` (`samples/evaluate_demo.py --check` compares them), at a
hundredth of the cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from avsynth.questions import Question
from tokenizers import Tokenizer

from .batches import SYSTEM, Collator, Sample
from .trunk import Trunk


@dataclass(frozen=True)
class Scored:
    """A question, the model's answer, and whether it is right."""

    question: Question
    right: bool
    said: str


def answer_all(
    trunk: Trunk,
    tok: Tokenizer,
    pairs: Iterable[tuple[Sample, list[Question]]],
    *,
    cut: int | None = None,
    keep: float | None = None,
    seed: int = 0,
    batch: int = 8,
) -> list[Scored]:
    """Ask every question about its clip.

    Parameters
    ----------
    cut : remove all clip tokens before this layer
    keep : share of the clip tokens that enter the first layer, drawn at random
    """
    trunk.eval()
    device = trunk.head.weight.device
    collate, out = Collator(tok), []
    pairs = [p for p in pairs if p[1]]
    rng = torch.Generator().manual_seed(seed)
    for i in range(0, len(pairs), batch):
        part = pairs[i : i + batch]
        made = collate([s for s, _ in part], [q for _, q in part], [SYSTEM] * len(part))
        chosen = None
        if keep is not None:
            chosen = torch.zeros(made.av.shape[:2], dtype=torch.bool)
            for r, (sample, _) in enumerate(part):
                n = len(sample.layout.index)
                chosen[r, torch.randperm(n, generator=rng)[: max(1, round(keep * n))]] = True
        with torch.no_grad():
            logits, _ = trunk(made.to(device), cut, None if chosen is None else chosen.to(device))
        said, want = logits.argmax(-1).tolist(), made.want.tolist()
        first = [k for k, f in enumerate(made.first.tolist()) if f] + [len(want)]
        for q, a, b in zip(made.questions, first, first[1:], strict=False):
            out.append(
                Scored(q, said[a:b] == want[a:b], tok.decode(said[a:b], skip_special_tokens=True))
            )
    return out


def table(scored: list[Scored]) -> dict[str, tuple[float, int]]:
    """Return accuracy and count by family, evidence (sparse or not), wording and kind."""
    groups: dict[str, list[bool]] = {"all": []}
    for s in scored:
        q = s.question
        for key in (
            "all",
            f"family:{q.family}",
            f"sparse:{q.sparse}",
            f"wording:{'seen' if q.seen else 'unseen'}",
            f"kind:{q.kind}",
        ):
            groups.setdefault(key, []).append(s.right)
    return {k: (float(np.mean(v)), len(v)) for k, v in groups.items()}
