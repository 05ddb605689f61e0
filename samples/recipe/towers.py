"""First stage: the two towers alone, each token taught to say what it shows.

    python samples/train_demo.py --stage towers --steps 1500

Windows of sound (2 s) and grids of two frames go through the library's own layers in batches of
equal shape, which the library's forward would run window by window. Each token is pulled towards
the vector that `labels.Speaker` gives it, and throw-away heads classify it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from avsynth.media import through_aac
from avsynth.picture import draw_frames, frame_times
from avsynth.sound import Bank, render_sound
from avsynth.world import (
    COLOURS,
    CORNERS,
    DIGITS,
    INSTRUMENTS,
    SHAPES,
    Clip,
    WorldOptions,
    draw_clip,
)
from torch import Tensor, nn

from omnidrop.clip.features import log_mel, patches

from .labels import Speaker, audio_labels, video_labels
from .layout import audio_tokens

WINDOW = 200  # mel frames


def audio_forward(tower: nn.Module, windows: Tensor, lengths: Tensor) -> Tensor:
    """Audio tower over many windows at once.

    Parameters
    ----------
    windows : (W, 128, 200) log-mel, zeros after the end
    lengths : (W,) mel frames of each

    Returns
    -------
    (W, 50, width); rows past a window's tokens are meaningless.
    """
    device = windows.device
    frames = torch.arange(windows.shape[2], device=device)
    inside = (frames < lengths[:, None])[:, None]
    x = F.gelu(tower.conv1(windows)) * inside
    x = F.gelu(tower.conv2(x)).transpose(1, 2)
    x = x + tower.positional_embedding.positional_embedding[: x.shape[1]].to(x.dtype)
    valid = torch.arange(x.shape[1], device=device) < ((lengths - 1) // 2 + 1)[:, None]
    mask = valid[:, None, None, :]
    for layer in tower.layers:
        h = layer.self_attn_layer_norm(x)
        a = layer.self_attn
        q, k, v = (
            p(h).unflatten(-1, (a.num_heads, -1)).transpose(1, 2)
            for p in (a.q_proj, a.k_proj, a.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + a.out_proj(y.transpose(1, 2).flatten(2))
        x = x + layer.fc2(F.gelu(layer.fc1(layer.final_layer_norm(x))))
    x = (x[:, 0::2] + x[:, 1::2]) / 2
    return tower.proj(tower.ln_post(x))


def wake(tower: nn.Module) -> None:
    """Start a tower's layers at unit gain; at the library's 0.02 so narrow a tower hardly mixes."""
    with torch.no_grad():
        for name, p in tower.named_parameters():
            if p.ndim > 1 and "embed" not in name:
                p.normal_(0, 1 / math.sqrt(p[0].numel()))


def window_ids(rows: int, cols: int, side: int) -> Tensor:
    """Which attention window each patch of a grid belongs to, in merge order."""
    r, c = torch.arange(rows)[:, None], torch.arange(cols)[None, :]
    cells = (r // side) * 1000 + c // side
    return cells.flatten().repeat_interleave(4)


def vision_forward(tower: nn.Module, grids: Tensor, rows: int, cols: int) -> Tensor:
    """Vision tower over many grids of one size.

    Parameters
    ----------
    grids : (G, rows * cols * 4, 1176) patches in merge order
    rows, cols : tokens of a grid

    Returns
    -------
    (G, rows * cols, width)
    """
    from transformers.vision_utils import get_vision_position_ids

    n = grids.shape[1]
    x = tower.patch_embed(grids.flatten(0, 1)).view(len(grids), n, -1)
    places = get_vision_position_ids(torch.tensor([[1, rows * 2, cols * 2]], device=x.device), 2)
    cos, sin = (t[None, None] for t in tower.rotary_pos_emb(x, places))
    ids = window_ids(rows, cols, tower.window_size // 28).to(x.device)
    same = ids[:, None] == ids[None, :]
    for i, blk in enumerate(tower.blocks):
        h, a = blk.norm1(x), blk.attn
        q, k, v = (p(h).unflatten(-1, (a.num_heads, -1)).transpose(1, 2) for p in (a.q, a.k, a.v))
        q, k = (
            (t * cos + torch.cat((-t.chunk(2, -1)[1], t.chunk(2, -1)[0]), -1) * sin).to(v.dtype)
            for t in (q, k)
        )
        full = i in tower.fullatt_block_indexes or bool(same.all())
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if full else same)
        x = x + a.proj(y.transpose(1, 2).flatten(2))
        x = x + blk.mlp(blk.norm2(x))
    return tower.merger(x).view(len(grids), rows * cols, -1)


def windows_of(mel: Tensor) -> tuple[Tensor, Tensor]:
    """Cut a log-mel (128, F) into (W, 128, 200) windows and their lengths."""
    n = mel.shape[1]
    count = -(-n // WINDOW)
    out = F.pad(mel, (0, count * WINDOW - n)).view(mel.shape[0], count, WINDOW).transpose(0, 1)
    lengths = torch.full((count,), WINDOW)
    lengths[-1] = n - (count - 1) * WINDOW
    return out.contiguous(), lengths


def hear(tower: nn.Module, audio: np.ndarray) -> Tensor:
    """Audio tower's tokens of a whole clip, (n, width)."""
    windows, lengths = (t.to(tower.proj.weight.device) for t in windows_of(log_mel(audio)))
    out = audio_forward(tower, windows, lengths).float().cpu()
    n = audio_tokens(len(audio))
    return out.flatten(0, 1)[:n]


def grids_of(frames: np.ndarray) -> tuple[Tensor, int, int]:
    """Frames uint8 (T, H, W, 3) to (grids, patches, 1176) and the token grid."""
    p, (t, h, w) = patches(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous())
    return p.view(t, h * w, -1), h // 2, w // 2


def see(tower: nn.Module, frames: np.ndarray) -> Tensor:
    """Vision tower's tokens of sampled frames, (n, width)."""
    grids, rows, cols = grids_of(frames)
    grids = grids.to(tower.patch_embed.proj.weight.device)
    return vision_forward(tower, grids, rows, cols).float().flatten(0, 1).cpu()


def worn(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames as a video codec leaves them: coarse colour, noise, some blur, another brightness."""
    x = frames.astype(np.float32)
    if rng.random() < 0.7:  # colour at half the resolution
        grey = x.mean(3, keepdims=True)
        colour = x - grey
        t, h, w, _ = colour.shape
        small = colour.reshape(t, h // 2, 2, w // 2, 2, 3).mean((2, 4))
        x = grey + small.repeat(2, 1).repeat(2, 2)
    if rng.random() < 0.4:
        a = float(rng.uniform(0.1, 0.5))
        for axis in (1, 2):
            x = (1 - a) * x + a / 2 * (np.roll(x, 1, axis) + np.roll(x, -1, axis))
    x = x * rng.uniform(0.92, 1.06) + rng.uniform(-8, 8)
    x += rng.normal(0, rng.uniform(0, 5), x.shape)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def worn_sound(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sound as files have it: another tone balance, and in half of the cases AAC."""
    if rng.random() < 0.5:
        a = float(rng.uniform(-0.5, 0.6))  # brighter or duller
        audio = audio + a * np.concatenate([[0.0], audio[:-1]]).astype(np.float32)
    if rng.random() < 0.5:
        audio = through_aac(np.clip(audio, -1, 1), int(rng.choice([32, 64, 96, 128])))
    return audio.astype(np.float32)


class Heads(nn.Module):
    """Throw-away classifiers on what the towers say."""

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


@dataclass(frozen=True)
class TowerOptions:
    """Settings of the stage."""

    steps: int = 1500
    clips: int = 10
    grids: int = 72
    rate: float = 1.5e-3
    warmup: int = 40
    seed: int = 3


def audio_batch(
    clips: list[Clip],
    bank: Bank,
    speaker: Speaker,
    wear: Callable[[np.ndarray], np.ndarray] | None = None,
):
    """Windows, lengths, target vectors, classes (8 = silence, -1 = mixed) and validity."""
    parts = []
    for clip in clips:
        audio = render_sound(clip, bank, bend=True)
        if wear is not None:
            audio = wear(audio)
        w, lengths = windows_of(log_mel(audio))
        n = audio_tokens(len(audio))
        lab = audio_labels(clip, n)
        room = len(w) * 50 - n
        target = np.pad(speaker.audio(lab), ((0, room), (0, 0)))
        share = lab["share"]
        kind = np.where(share.max(1) > 0.9, share.argmax(1), np.where(share.sum(1) < 0.1, 8, -1))
        kind = np.pad(kind, (0, room), constant_values=-1)
        valid = np.arange(len(w) * 50) < n
        parts.append(
            (w, lengths, torch.from_numpy(target), torch.from_numpy(kind), torch.from_numpy(valid))
        )
    return tuple(torch.cat(p) for p in zip(*parts, strict=True))


def video_batch(
    clips: list[Clip],
    speaker: Speaker,
    rng: np.random.Generator,
    limit: int,
    still_share: float = 0.0,
):
    """Patches of `limit` grids of one size, targets and classes; grids with a digit come first."""
    grids, targets, classes = [], [], []
    count = 0
    for clip in clips:
        lab = video_labels(clip)
        order = np.argsort(~lab["grid_digit"] + 0.3 * rng.random(lab["grids"]), kind="stable")[:4]
        times = frame_times(clip.duration)
        if still := bool(rng.random() < still_share):  # both frames of a grid alike
            for k in ("cover", "event", "digit"):
                lab[k][:, 1] = lab[k][:, 0]
        times = times[
            np.minimum(np.stack([2 * order, 2 * order + (not still)], 1), len(times) - 1).reshape(
                -1
            )
        ]
        frames = draw_frames(clip, times)
        if rng.random() < 0.8:
            frames = worn(frames, rng)
        p, rows, cols = grids_of(frames)
        n = rows * cols
        cover, event = lab["cover"], lab["event"]
        none = np.full((lab["grids"], n), -1)
        kinds = {k: none.copy() for k in ("shape", "colour", "digit", "hue", "corner")}
        calm = cover.max(1) < 0.02
        sure = (event[:, :1] == event[:, 1:]) & (cover.min(1) > 0.06)
        e = np.maximum(event[:, 0], 0)
        digit = lab["digit"].max(1) > 0
        for name, group, attr in (("shape", SHAPES, "shape"), ("colour", COLOURS, "colour")):
            value = np.array([group.index(getattr(s, attr)) for s in clip.shapes] or [0])
            kinds[name] = np.where(calm, len(group), np.where(sure, value[e][:, None], -1))
            kinds[name] = np.where(digit, -1, kinds[name])
        f = clip.flash
        kinds["digit"] = np.where(digit, DIGITS.index(f.digit) if f else 0, len(DIGITS))
        if f:
            kinds["hue"] = np.where(digit, COLOURS.index(f.colour), -1)
            kinds["corner"] = np.where(digit, CORNERS.index(f.corner), -1)
        target = speaker.video(clip, lab).reshape(lab["grids"], n, -1)
        grids.append(p)
        targets.append(target[order])
        classes.append({k: v[order] for k, v in kinds.items()})
        count += len(order)
        if count >= limit:
            break
    return (
        torch.cat(grids),
        torch.from_numpy(np.concatenate(targets)),
        {k: torch.from_numpy(np.concatenate([c[k] for c in classes])) for k in classes[0]},
        rows,
        cols,
    )


def train_towers(
    audio: nn.Module,
    vision: nn.Module,
    speaker: Speaker,
    bank: Bank,
    options: TowerOptions,
    folder: Path,
    save_every: int = 100,
    log: Callable[[str], None] = print,
) -> float:
    """Train both towers; resumes from `folder/towers.pt`. Returns the last loss."""
    torch.manual_seed(options.seed)
    o = options
    device = audio.proj.weight.device
    heads = Heads(len(speaker.silence)).to(device)
    whole = nn.ModuleDict({"audio": audio, "vision": vision, "heads": heads})
    optim = torch.optim.AdamW(
        whole.parameters(), lr=o.rate, betas=(0.9, 0.97), weight_decay=0.02, fused=True
    )
    path, begin = folder / "towers.pt", 0
    if path.exists():
        state = torch.load(path, weights_only=False, map_location=device)
        whole.load_state_dict(state["whole"])
        optim.load_state_dict(state["optim"])
        begin = state["step"]
    rng = np.random.default_rng([o.seed, begin])
    seed = 400_000_000 + begin * 1000
    start, losses, scores = time.time(), [], []
    odd = WorldOptions(odd_sizes=1.0)
    square = WorldOptions(odd_sizes=0.0)
    whole.train()
    for step in range(begin, o.steps):
        rate = (
            o.rate
            * min(1.0, (step + 1) / o.warmup)
            * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / o.steps)))
        )
        for group in optim.param_groups:
            group["lr"] = rate
        heard: list[Clip] = []
        seen: list[Clip] = []
        other = rng.random() < 0.12
        size = None
        while len(heard) < o.clips or len(seen) < o.grids // 4:
            seed += 1
            clip = draw_clip(seed, odd if other else square)
            if clip.sounds is not None and len(heard) < o.clips:
                heard.append(clip)
            if clip.shapes is not None and len(seen) < o.grids // 4:
                size = size or (clip.width, clip.height)
                if (clip.width, clip.height) == size:
                    seen.append(clip)
            if seed % 97 == 0:
                size = size or None
        heard_parts = (
            audio_batch(heard, bank, speaker, lambda x: worn_sound(x, rng)) if heard else ()
        )
        loss = torch.zeros((), device=device)
        logits: dict[str, Tensor] = {}
        wanted: dict[str, Tensor] = {}
        if heard:
            w, lengths, a_target, a_kind, valid = (t.to(device) for t in heard_parts)
            with torch.autocast(device.type, torch.bfloat16):
                a_out = audio_forward(audio, w, lengths).float().flatten(0, 1)[valid]
            loss = loss + (a_out - a_target[valid]).pow(2).mean() * 4
            logits["sound"], wanted["sound"] = heads.items["sound"](a_out), a_kind[valid]
        if seen:
            still = 0.8 if step < 0.3 * o.steps else 0.1
            g, v_target, v_kind, rows, cols = video_batch(seen, speaker, rng, o.grids, still)
            g, v_target = g.to(device), v_target.to(device)
            v_kind = {k: v.to(device) for k, v in v_kind.items()}
            with torch.autocast(device.type, torch.bfloat16):
                v_out = vision_forward(vision, g, rows, cols).float()
            weight = 1 + 6 * (v_kind["hue"] >= 0).float()
            loss = loss + ((v_out - v_target).pow(2).mean(-1) * weight).mean() * 4
            for k, labels in v_kind.items():
                logits[k], wanted[k] = heads.items[k](v_out).flatten(0, 1), labels.flatten()
        score = {}
        for k in logits:
            on = wanted[k] >= 0
            if on.any():
                weights = None
                if k in ("shape", "colour", "digit"):  # most tokens show nothing
                    weights = torch.ones(logits[k].shape[-1], device=device)
                    weights[-1] = 0.05 if k == "digit" else 0.3
                part = F.cross_entropy(logits[k][on], wanted[k][on], weight=weights)
                loss = loss + (3 * part if k == "shape" else part)  # by far the slowest to come
                some = on & (wanted[k] < {"shape": 6, "colour": 6, "digit": 6}.get(k, 99))
                if some.any():
                    hit = logits[k][some].argmax(-1) == wanted[k][some]
                    score[k] = float(hit.float().mean())
        optim.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
        optim.step()
        losses.append(float(loss.detach()))
        scores.append(score)
        if (step + 1) % 20 == 0 or step - begin in (0, 4, 9):
            mean = {k: np.mean([s[k] for s in scores[-20:] if k in s] or [0]) for k in logits}
            log(
                f"towers {step + 1} loss {np.mean(losses[-10:]):.3f} "
                + " ".join(f"{k} {v:.3f}" for k, v in mean.items())
                + f" {(time.time() - start) / (step + 1 - begin):.2f} s/step"
            )
        if (step + 1) % save_every == 0 or step + 1 == o.steps:
            tmp = path.with_suffix(".tmp")
            torch.save(
                {"whole": whole.state_dict(), "optim": optim.state_dict(), "step": step + 1}, tmp
            )
            tmp.rename(path)
    return float(np.mean(losses[-20:]))
