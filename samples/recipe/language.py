"""Second stage: the decoder learns to answer from the towers' output, ideal or real.

    python samples/train_demo.py --stage language --steps 2000

Training starts on noisy concept vectors in place of tower outputs, so no clip has to be rendered.
The `mixed` stage continues with outputs of the trained towers (`pool`).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from avsynth.world import WorldOptions, draw_clip

from . import checkpoint
from .batches import OTHER_SYSTEMS, SYSTEM, Asker, Batch, Collator, Sample, make_sample
from .checkpoint import Course
from .labels import Speaker
from .trunk import Trunk
from .vocab import concept_vectors, word_vectors

JUDGE_SEED = 49_000_000
"""First seed of the batches that a stage is evaluated on; training uses smaller seeds."""


@dataclass(frozen=True)
class LanguageOptions:
    """Settings of the stage.

    Attributes
    ----------
    clips, questions : clips per step, and questions about each
    cut_from, cut_share, cut_after : after the part `cut_after` of the run, all clip tokens are
        removed before a random layer from `cut_from` on, in the share `cut_share` of the steps
    probe_weight, probe_until, gaze_weight : weights of the auxiliary losses, and the part of the
        run by which they reach zero
    min_s, max_s : length of the clips that are drawn
    real_share : share of clips from the pool of tower outputs, if there is a pool
    horizon : steps over which learning rate and auxiliary losses decay, if not `steps`
    """

    steps: int = 2000
    clips: int = 16
    questions: int = 14
    rate: float = 1e-3
    warmup: int = 60
    cut_from: int = 10
    cut_share: float = 0.0
    cut_after: float = 0.0
    probe_weight: float = 0.3
    probe_until: float = 0.7
    gaze_weight: float = 2.0
    real_share: float = 0.8
    horizon: int | None = None
    seed: int = 1
    min_s: float = 6.0
    max_s: float = 10.0


def teach_words(trunk: Trunk, tok, seed: int = 11) -> Speaker:
    """Initialise the text embeddings and the head; return the `Speaker` of tower targets."""
    width = trunk.head.in_features
    table = torch.from_numpy(word_vectors(tok, width, seed)).to(trunk.head.weight.device)
    with torch.no_grad():
        trunk.text.embed_tokens.weight[: len(table)] = table
        trunk.head.weight.normal_(0, 0.02)
        trunk.head.weight[: len(table)] += 0.15 * table
        for layer in trunk.text.layers:
            start_layer(layer, 2 * len(trunk.text.layers))
    return Speaker(concept_vectors(width, seed))


def start_layer(layer: torch.nn.Module, residuals: int) -> None:
    """Initialise a decoder layer: its heads attend to similar content and copy it.

    In the half of each head's dimensions that rotary positions hardly rotate, query and key share
    their weights ("mimetic" initialisation, Trockman & Kolter 2023), and the output projection
    inverts the value projection.
    """
    a, m = layer.self_attn, layer.mlp
    width, dim = a.k_proj.weight.shape[1], a.head_dim
    scale = 1 / math.sqrt(width)
    k = torch.randn(dim, width, device=a.k_proj.weight.device) * scale
    slow = torch.arange(dim, device=k.device) % (dim // 2) >= dim // 4
    v = torch.randn(dim, width, device=a.k_proj.weight.device) * scale
    heads = a.q_proj.weight.shape[0] // dim
    q = torch.randn(heads, dim, width, device=k.device) * scale
    for h, share in enumerate([1.3, 0.7, 0.0][:heads]):
        q[h, slow] = share * k[slow] + (1 - min(share, 1)) * q[h, slow]
    a.q_proj.weight.copy_(q.flatten(0, 1))
    a.k_proj.weight.copy_(k)
    a.v_proj.weight.copy_(v)
    for bias in (a.q_proj.bias, a.k_proj.bias):
        bias.normal_(0, 0.3)
    back = v.T * (1.5 / math.sqrt(residuals))
    out = torch.randn(width, heads, dim, device=k.device) * scale / math.sqrt(residuals)
    a.o_proj.weight.copy_(
        (
            out * 0.5 + back[:, None] * torch.tensor([1.0, 1.0, 0.5], device=k.device)[:heads, None]
        ).flatten(1)
    )
    for w in (m.gate_proj.weight, m.up_proj.weight):
        w.normal_(0, scale)
    m.down_proj.weight.normal_(0, 1 / math.sqrt(m.down_proj.weight.shape[1] * residuals))


def grow(small: torch.nn.Module, large: torch.nn.Module) -> None:
    """Fill a text model of twice the layers: after each trained layer, one without effect yet."""
    large.embed_tokens.load_state_dict(small.embed_tokens.state_dict())
    large.norm.load_state_dict(small.norm.state_dict())
    with torch.no_grad():
        for i, layer in enumerate(small.layers):
            large.layers[2 * i].load_state_dict(layer.state_dict())
            fresh = large.layers[2 * i + 1]
            start_layer(fresh, 2 * len(large.layers))
            fresh.self_attn.o_proj.weight.zero_()
            fresh.mlp.down_proj.weight.zero_()


class Source:
    """Endless training batches of clips of similar length."""

    def __init__(
        self,
        tok,
        speaker: Speaker,
        options: LanguageOptions,
        pool: list[Sample] | None = None,
        first_seed: int = 0,
    ) -> None:
        self.options, self.speaker, self.pool = options, speaker, pool
        self.rng = np.random.default_rng([options.seed, first_seed])
        self.asker, self.collate = Asker(self.rng), Collator(tok)
        self.seed, self.queue = 1000 + options.seed * 50_000_000 + first_seed, []

    def __next__(self):
        o = self.options
        if not self.queue:
            world = WorldOptions(min_s=o.min_s, max_s=o.max_s)
            samples = []
            while len(samples) < 4 * o.clips:
                if self.pool is not None and self.rng.random() < o.real_share:
                    samples.append(self.pool[int(self.rng.integers(len(self.pool)))])
                else:
                    self.seed += 1
                    samples.append(make_sample(draw_clip(self.seed, world), self.speaker, self.rng))
            samples.sort(key=lambda s: len(s.layout.index))
            groups = [samples[i : i + o.clips] for i in range(0, len(samples), o.clips)]
            self.queue = [groups[i] for i in self.rng.permutation(len(groups))]
        samples = self.queue.pop()
        asked = [self.asker.draw(s.clip, o.questions) for s in samples]
        systems = [
            SYSTEM if self.rng.random() < 0.85 else str(self.rng.choice(OTHER_SYSTEMS))
            for _ in samples
        ]
        return self.collate(samples, asked, systems)


def judge(trunk: Trunk, batches: list[Batch]) -> float:
    """Return the mean loss of the answers in some batches, with all clip tokens kept."""
    trunk.eval()
    with torch.no_grad():
        losses = [F.cross_entropy(trunk(b)[0], b.want) for b in batches]
    trunk.train()
    return float(torch.stack(losses).mean())


def auxiliary(trunk: Trunk, batch: Batch, probed: dict[str, torch.Tensor], gaze: float):
    """Return the probe losses plus the gaze losses times `gaze`."""
    loss = gaze * (trunk.gaze_loss + trunk.name_loss)
    for name, logits in probed.items():
        labels = batch.probes[name].flatten()
        if (labels >= 0).any():
            loss = loss + F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=-1)
    return loss


def train_language(
    trunk: Trunk,
    tok,
    speaker: Speaker,
    options: LanguageOptions,
    folder: Path,
    pool: list[Sample] | None = None,
    save_every: int = 100,
    log=print,
    tag: str = "language",
) -> Course:
    """Train; resume from `folder/<tag>.pt` if it exists.

    A resumed run draws other clips than an uninterrupted one; their seeds depend on the step.
    """
    o = options
    torch.manual_seed(o.seed)
    device = trunk.head.weight.device
    decay = [p for p in trunk.parameters() if p.ndim > 1]
    plain = [p for p in trunk.parameters() if p.ndim < 2]
    optim = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}],
        lr=o.rate,
        betas=(0.9, 0.97),
        fused=True,
    )
    path, begin = folder / f"{tag}.pt", 0
    state = checkpoint.read(path, device)
    if state is not None:
        trunk.load_state_dict(state["trunk"])
        optim.load_state_dict(state["optim"])
        begin = state["step"]
    if begin >= o.steps:
        return Course(begin, begin)
    source = Source(tok, speaker, o, pool, first_seed=begin * 1000)
    if state is not None:
        source.asker.error = state["error"]
    other = Source(tok, speaker, o, pool, first_seed=JUDGE_SEED)
    held = [next(other).to(device) for _ in range(2)]
    first = judge(trunk, held)
    picks = np.random.default_rng([o.seed, begin, 7])
    start, loss_seen, right_seen = time.time(), [], []
    trunk.train()
    for step in range(begin, o.steps):
        done = step / (o.horizon or o.steps)
        rate = (
            o.rate
            * min(1.0, (step + 1) / o.warmup)
            * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * done)))
        )
        for group in optim.param_groups:
            group["lr"] = rate
        batch = next(source).to(device)
        cut = None
        if done >= o.cut_after and picks.random() < o.cut_share:
            cut = int(picks.integers(o.cut_from, len(trunk.text.layers)))
        logits, probed = trunk(batch, cut)
        loss = answer_loss = F.cross_entropy(logits, batch.want)
        aux = o.probe_weight * max(0.0, 1 - done / o.probe_until)
        if aux > 0:
            loss = loss + aux * auxiliary(trunk, batch, probed, o.gaze_weight)
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trunk.parameters(), 1.0)
        optim.step()
        with torch.no_grad():
            hit = (logits.argmax(-1) == batch.want)[batch.first].cpu().numpy()
        source.asker.note([q.kind for q in batch.questions], hit)
        loss_seen.append(float(answer_loss.detach()))
        right_seen.append(hit.mean())
        if (step + 1) % 20 == 0 or step - begin in (0, 4, 9):
            log(
                f"{tag} {step + 1} loss {np.mean(loss_seen[-10:]):.3f} right "
                f"{np.mean(right_seen[-20:]):.3f} gaze {float(trunk.gaze_loss.detach()):.2f} "
                f"{float(trunk.name_loss.detach()):.2f} total {float(loss.detach()):.2f} "
                f"{(time.time() - start) / (step + 1 - begin):.2f} s/step L {batch.ids.shape}"
            )
        if (step + 1) % save_every == 0 or step + 1 == o.steps:
            worst = sorted(source.asker.error.items(), key=lambda kv: -kv[1])
            log("  errors: " + " ".join(f"{k}={v:.2f}" for k, v in worst))
            checkpoint.write(
                path,
                {
                    "trunk": trunk.state_dict(),
                    "optim": optim.state_dict(),
                    "step": step + 1,
                    "error": source.asker.error,
                },
            )
    return Course(begin, o.steps, first, judge(trunk, held))
