"""First stages: train the two towers with a target for each token.

    python samples/train_demo.py --out /tmp/run --stage towers

Each token is trained to equal the vector that `labels.Speaker` gives it, and to be classified by
heads that are discarded afterwards. Both towers are trained together first, and then each alone for
some more steps (`start`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from avsynth.sound import Bank
from avsynth.world import COLOURS, CORNERS, DIGITS, INSTRUMENTS, SHAPES
from torch import Tensor, nn

from . import checkpoint
from .checkpoint import Course
from .labels import Speaker
from .lessons import Lesson, Lessons, TowerOptions
from .precision import working_dtype
from .towers import audio_forward, vision_forward

TRAIN_SEED, JUDGE_SEED = 400_000_000, 500_000_000


class Heads(nn.Module):
    """Classifiers on the towers' output; discarded after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = {
            "sound": len(INSTRUMENTS) + 1,
            "shape": len(SHAPES) + 1,
            "colour": len(COLOURS) + 1,
            "digit": len(DIGITS) + 1,
            "hue": len(COLOURS),
            "corner": len(CORNERS),
        }
        self.items = nn.ModuleDict({k: nn.Linear(width, n) for k, n in sizes.items()})


def lesson_loss(
    audio: nn.Module, vision: nn.Module, heads: Heads, lesson: Lesson
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a lesson, and the accuracy of each head."""
    device = audio.proj.weight.device
    halved = working_dtype(device) is torch.bfloat16
    loss = torch.zeros((), device=device)
    logits: dict[str, Tensor] = {}
    wanted: dict[str, Tensor] = {}
    if lesson.sound is not None:
        w, lengths, target, kind, valid = (t.to(device) for t in lesson.sound)
        with torch.autocast(device.type, torch.bfloat16, enabled=halved):
            out = audio_forward(audio, w, lengths).float().flatten(0, 1)[valid]
        loss = loss + (out - target[valid]).pow(2).mean() * 4
        logits["sound"], wanted["sound"] = heads.items["sound"](out), kind[valid]
    if lesson.picture is not None:
        grids, target, kinds, rows, cols = lesson.picture
        kinds = {k: v.to(device) for k, v in kinds.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=halved):
            out = vision_forward(vision, grids.to(device), rows, cols).float()
        weight = 1 + 6 * (kinds["hue"] >= 0).float()
        loss = loss + ((out - target.to(device)).pow(2).mean(-1) * weight).mean() * 4
        for k, labels in kinds.items():
            logits[k], wanted[k] = heads.items[k](out).flatten(0, 1), labels.flatten()
    score = {}
    for k in logits:
        on = wanted[k] >= 0
        if not on.any():
            continue
        weights = None
        if k in ("shape", "colour", "digit"):  # most tokens show nothing
            weights = torch.ones(logits[k].shape[-1], device=device)
            weights[-1] = 0.05 if k == "digit" else 0.3
        part = F.cross_entropy(logits[k][on], wanted[k][on], weight=weights)
        loss = loss + (3 * part if k == "shape" else part)  # by far the slowest to learn
        some = on & (wanted[k] < {"shape": 6, "colour": 6, "digit": 6}.get(k, 99))
        if some.any():
            hit = logits[k][some].argmax(-1) == wanted[k][some]
            score[k] = float(hit.float().mean())
    return loss, score


def train_towers(
    audio: nn.Module,
    vision: nn.Module,
    speaker: Speaker,
    bank: Bank,
    options: TowerOptions,
    folder: Path,
    save_every: int = 100,
    log: Callable[[str], None] = print,
    tag: str = "towers",
    start: str | None = None,
) -> Course:
    """Train; resume from `folder/<tag>.pt` if it exists, else start from `folder/<start>.pt`.

    A resumed run draws other clips than an uninterrupted one; their seeds depend on the step.
    """
    o = options
    torch.manual_seed(o.seed)
    device = audio.proj.weight.device
    heads = Heads(len(speaker.silence)).to(device)
    whole = nn.ModuleDict({"audio": audio, "vision": vision, "heads": heads})
    optim = torch.optim.AdamW(
        whole.parameters(), lr=o.rate, betas=(0.9, 0.97), weight_decay=0.02, fused=True
    )
    path, begin = folder / f"{tag}.pt", 0
    state = checkpoint.read(path, device)
    if state is None and start is not None:
        state = checkpoint.read(folder / f"{start}.pt", device)
    if state is not None:
        whole.load_state_dict(state["whole"])
        optim.load_state_dict(state["optim"])
        begin = state["step"]
    if begin >= o.steps:
        return Course(begin, begin)
    held = Lessons(o, bank, speaker, 0, JUDGE_SEED).draw(0.5)
    lessons = Lessons(o, bank, speaker, begin, TRAIN_SEED)

    def judge() -> float:
        with torch.no_grad():
            return float(lesson_loss(audio, vision, heads, held)[0])

    first = judge()
    began, losses, scores = time.time(), [], []
    whole.train()
    for step in range(begin, o.steps):
        rate = (
            o.rate
            * min(1.0, (step + 1) / o.warmup)
            * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / o.steps)))
        )
        for group in optim.param_groups:
            group["lr"] = rate
        lesson = lessons.draw(0.8 if step < 0.3 * o.steps else 0.1)
        loss, score = lesson_loss(audio, vision, heads, lesson)
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
        optim.step()
        losses.append(float(loss.detach()))
        scores.append(score)
        if (step + 1) % 20 == 0 or step - begin in (0, 4, 9):
            mean = {k: np.mean([s[k] for s in scores[-20:] if k in s]) for k in score}
            log(
                f"{tag} {step + 1} loss {np.mean(losses[-10:]):.3f} "
                + " ".join(f"{k} {v:.3f}" for k, v in mean.items())
                + f" {(time.time() - began) / (step + 1 - begin):.2f} s/step"
            )
        if (step + 1) % save_every == 0 or step + 1 == o.steps:
            checkpoint.write(
                path,
                {"whole": whole.state_dict(), "optim": optim.state_dict(), "step": step + 1},
            )
    return Course(begin, o.steps, first, judge())
