"""Batched forward passes of the towers for training.

Many audio windows (2 s) or grids (two frames) of equal shape pass through transformers' layers in
one batch. Tests compare the results with transformers' own forward, which runs window by window.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omnidrop.clip.log_mel import log_mel
from omnidrop.clip.patches import patches

from .layout import audio_tokens

WINDOW = 200  # mel frames


def audio_forward(tower: nn.Module, windows: Tensor, lengths: Tensor) -> Tensor:
    """Run the audio tower on a batch of windows.

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
    """Initialise a tower with unit gain; the default std of 0.02 is too small for its width."""
    with torch.no_grad():
        for name, p in tower.named_parameters():
            if p.ndim > 1 and "embed" not in name:
                p.normal_(0, 1 / math.sqrt(p[0].numel()))


def window_ids(rows: int, cols: int, side: int) -> Tensor:
    """Return the attention window of each patch of a grid, in merge order."""
    r, c = torch.arange(rows)[:, None], torch.arange(cols)[None, :]
    cells = (r // side) * 1000 + c // side
    return cells.flatten().repeat_interleave(4)


def patch_places(rows: int, cols: int) -> Tensor:
    """Return row and column of each patch of a grid, in merge order, (rows * cols * 4, 2)."""
    r, c = torch.meshgrid(torch.arange(rows * 2), torch.arange(cols * 2), indexing="ij")
    cells = torch.stack([r, c], -1).view(rows, 2, cols, 2, 2)
    return cells.transpose(1, 2).reshape(-1, 2)


def vision_forward(tower: nn.Module, grids: Tensor, rows: int, cols: int) -> Tensor:
    """Run the vision tower on a batch of grids of one size.

    Parameters
    ----------
    grids : (G, rows * cols * 4, 1176) patches in merge order
    rows, cols : tokens of a grid

    Returns
    -------
    (G, rows * cols, width)
    """
    n = grids.shape[1]
    x = tower.patch_embed(grids.flatten(0, 1)).view(len(grids), n, -1)
    places = patch_places(rows, cols).to(x.device)
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
    """Return the audio tower's output for a whole clip, (n, width)."""
    windows, lengths = (t.to(tower.proj.weight.device) for t in windows_of(log_mel(audio)))
    out = audio_forward(tower, windows, lengths).float().cpu()
    n = audio_tokens(len(audio))
    return out.flatten(0, 1)[:n]


def grids_of(frames: np.ndarray) -> tuple[Tensor, int, int]:
    """Cut frames, uint8 (T, H, W, 3), into (grids, patches, 1176); return also the token grid."""
    p, (t, h, w) = patches(torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous())
    return p.view(t, h * w, -1), h // 2, w // 2


def see(tower: nn.Module, frames: np.ndarray) -> Tensor:
    """Return the vision tower's output for sampled frames, (n, width)."""
    grids, rows, cols = grids_of(frames)
    grids = grids.to(tower.patch_embed.proj.weight.device)
    return vision_forward(tower, grids, rows, cols).float().flatten(0, 1).cpu()
