"""The lab model learns to answer from what the encoders put out, and keeps its language."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from recipe import checkpoint
from recipe.batches import Batch, Sample
from recipe.checkpoint import Course
from recipe.labels import Speaker
from recipe.language import JUDGE_SEED, LanguageOptions, Source

from .text import divergence, padded
from .trunk import LabCollator, LabTrunk


@dataclass(frozen=True)
class LabOptions:
    """Settings of the training.

    Attributes
    ----------
    steps, horizon : int
        Steps, and those over which the learning rate decays.
    clips, questions : int
        Clips a step, and questions about each.
    rate, new_rate : float
        Learning rates of the decoder, and of projector and markers.
    warmup : int
    real_share : float
        Share of clips from the pool of encoder outputs; the others are drawn, with ideal ones.
    min_s, max_s : float
        Length of the drawn clips in seconds.
    text_every, text_rows : int
        Every so many steps the model is also held to so many rows of plain text.
    text_weight : float
    wide_share : float
        Share of the pool's clips that are wide (`avsynth.wide`): longer, with things at the same
        time, words on screen and spoken words, and their own questions. 0 in the published recipe.
    wide_s : float
        Length of the longest wide clip in seconds; the longest clip of a batch sets its size.
    seed : int
    """

    steps: int = 3000
    horizon: int = 3000
    clips: int = 2
    questions: int = 14
    rate: float = 1.5e-4
    new_rate: float = 6e-4
    warmup: int = 40
    real_share: float = 0.75
    min_s: float = 5.0
    max_s: float = 9.5
    text_every: int = 4
    text_rows: int = 4
    text_weight: float = 0.5
    wide_share: float = 0.0
    wide_s: float = 20.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Check the share and the length of wide clips."""
        if not 0 <= self.wide_share <= 1:
            raise ValueError(f"wide_share is a share of clips, {self.wide_share} is not: 0 to 1")
        if not 6 <= self.wide_s <= 60:
            raise ValueError(f"wide clips have 6 to 60 s, wide_s says {self.wide_s}")

    def source(self) -> LanguageOptions:
        """Return the settings that batches are drawn by."""
        return LanguageOptions(
            steps=self.steps,
            clips=self.clips,
            questions=self.questions,
            real_share=self.real_share,
            seed=self.seed,
            min_s=self.min_s,
            max_s=self.max_s,
        )


@dataclass
class Texts:
    """Plain text with the pretrained model that wrote it."""

    rows: list[list[int]]
    teacher: LabTrunk

    def loss(self, trunk: LabTrunk, picks: np.ndarray) -> torch.Tensor:
        """Return how far the model is from the pretrained one on some rows."""
        device = trunk.head.weight.device
        ids, real = (t.to(device) for t in padded([self.rows[int(i)] for i in picks]))
        with torch.no_grad():
            wanted = self.teacher.read(ids, real)
        return divergence(trunk.read(ids, real), wanted, real)


def frozen_copy(trunk: LabTrunk) -> LabTrunk:
    """Return a copy that is never trained, with the same embeddings and head."""
    shared = {id(p): p for p in (trunk.text.embed_tokens.weight, trunk.head.weight)}
    return copy.deepcopy(trunk, shared).requires_grad_(False).eval()


def answered(trunk: LabTrunk, batches: list[Batch]) -> tuple[float, float]:
    """Return the mean loss of the answers in some batches, and the share of right ones."""
    trunk.eval()
    losses, right = [], []
    with torch.no_grad():
        for batch in batches:
            logits, _ = trunk(batch)
            losses.append(float(F.cross_entropy(logits, batch.want)))
            right.append(whole_answers(logits, batch))
    trunk.train()
    return float(np.mean(losses)), float(np.concatenate(right).mean())


def whole_answers(logits: torch.Tensor, batch: Batch) -> np.ndarray:
    """Return which answers are right in every token."""
    hit = (logits.argmax(-1) == batch.want).cpu().numpy()
    begins = np.flatnonzero(batch.first.cpu().numpy())
    return np.logical_and.reduceat(hit, begins)


def teach(
    trunk: LabTrunk,
    tok,
    speaker: Speaker,
    pool: list[Sample],
    texts: Texts,
    options: LabOptions,
    folder: Path,
    *,
    save_every: int = 100,
    log: Callable[[str], None] = print,
    tag: str = "lab",
) -> Course:
    """Train; go on from `folder/<tag>.pt` if it is there.

    A run that goes on draws other clips than one that was never stopped; their seeds depend on the
    step.
    """
    o = options
    torch.manual_seed(o.seed)
    device = trunk.head.weight.device
    learned = {name: p for name, p in trunk.named_parameters() if p.requires_grad}
    fresh = ("projector", "markers")
    groups = [
        {
            "params": [
                p for n, p in learned.items() if n.startswith(fresh) == new and (p.ndim > 1) == wide
            ],
            "weight_decay": 0.01 if wide else 0.0,
            "base": o.new_rate if new else o.rate,
        }
        for new in (False, True)
        for wide in (False, True)
    ]
    optim = torch.optim.AdamW(groups, lr=o.rate, betas=(0.9, 0.98), fused=True)
    path, begin, error = folder / f"{tag}.pt", 0, None
    state = checkpoint.read(path, device)
    if state is not None:
        trunk.load_state_dict(state["learned"], strict=False)
        optim.load_state_dict(state["optim"])
        begin, error = state["step"], state["error"]
    if begin >= o.steps:
        return Course(begin, begin)
    source = _source(tok, speaker, o, pool, begin * 1000)
    if error is not None:
        source.asker.error = error
    other = _source(tok, speaker, o, pool, JUDGE_SEED)
    held = [next(other).to(device) for _ in range(4)]
    first, _ = answered(trunk, held)
    picks = np.random.default_rng([o.seed, begin, 7])
    start, losses, right, kept = time.time(), [], [], []
    trunk.train()
    for step in range(begin, o.steps):
        warm = min(1.0, (step + 1) / o.warmup)
        rate = warm * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / o.horizon))))
        for group in optim.param_groups:
            group["lr"] = rate * group["base"]
        batch = next(source).to(device)
        logits, _ = trunk(batch)
        loss = F.cross_entropy(logits, batch.want)
        optim.zero_grad(set_to_none=True)
        loss.backward()
        if o.text_weight and step % o.text_every == 0:
            rows = picks.choice(len(texts.rows), o.text_rows, replace=False)
            far = texts.loss(trunk, rows)
            (o.text_weight * far).backward()
            kept.append(float(far.detach()))
        torch.nn.utils.clip_grad_norm_(learned.values(), 1.0)
        optim.step()
        with torch.no_grad():
            hit = whole_answers(logits, batch)
        source.asker.note([q.kind for q in batch.questions], hit)
        losses.append(float(loss.detach()))
        right.append(float(hit.mean()))
        if (step + 1) % 20 == 0 or step - begin in (0, 4, 9):
            log(
                f"{tag} {step + 1} loss {np.mean(losses[-20:]):.3f} right "
                f"{np.mean(right[-40:]):.3f} text {np.mean(kept[-10:] or [np.nan]):.4f} "
                f"{(time.time() - start) / (step + 1 - begin):.2f} s/step {tuple(batch.ids.shape)}"
            )
        if (step + 1) % save_every == 0 or step + 1 == o.steps:
            worst = sorted(source.asker.error.items(), key=lambda kv: -kv[1])
            log("  errors: " + " ".join(f"{k}={v:.2f}" for k, v in worst[:14]))
            log("  held out: loss {:.3f}, right {:.3f}".format(*answered(trunk, held)))
            checkpoint.write(
                path,
                {
                    "learned": trunk.learned(),
                    "optim": optim.state_dict(),
                    "step": step + 1,
                    "error": source.asker.error,
                },
            )
    return Course(begin, o.steps, first, answered(trunk, held)[0])


def _source(
    tok, speaker: Speaker, options: LabOptions, pool: list[Sample], first_seed: int
) -> Source:
    source = Source(tok, speaker, options.source(), pool, first_seed=first_seed)
    source.collate = LabCollator(tok)
    return source
