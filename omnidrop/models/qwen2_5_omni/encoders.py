"""The towers of Qwen2.5-Omni, run over the library's weights with equal windows batched.

The reference runs one attention call per window and layer; here all windows of one size are one
call. Attention never crosses a frame (vision) or a window of 2 s (audio), so both towers work
through any number of frames or seconds in batches of bounded size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from omnidrop.models.attention import attend, rotate
from omnidrop.shapes import VISION_BATCH

#: Windows (2 s each) that pass the audio tower together.
AUDIO_BATCH = 64
#: Frame sizes whose window plan is remembered.
PLANS = 4


def attention_received(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Return what each token of a window is given: mean over heads, summed over queries.

    Parameters
    ----------
    query, key : Tensor, (b, n, heads, head_dim)
    scaling : float

    Returns
    -------
    Tensor, (b, n) float32
    """
    heads = query.shape[2]
    # One head at a time: the weights of all heads of a batch would be the largest tensor here.
    total = torch.zeros(query.shape[:2], dtype=torch.float32, device=query.device)
    for head in range(heads):
        scores = query[:, :, head].float() @ key[:, :, head].float().transpose(1, 2)
        total += (scores * scaling).softmax(-1).sum(1)
    return total / heads


class Windows(NamedTuple):
    """How the patches of one frame fall into windows.

    Attributes
    ----------
    tokens : Tensor, (h/merge · w/merge,) int64
        Tokens of a frame, sorted by the size of their window, then by window.
    back : Tensor, (h/merge · w/merge,) int64
        The inverse of `tokens`.
    groups : tuple of (int, int)
        Number of windows and patches per window, in that order.
    cos, sin : Tensor, (h · w, 1, head_dim) float32
        Rotary angles of the patches in that order.
    """

    tokens: Tensor
    back: Tensor
    groups: tuple[tuple[int, int], ...]
    cos: Tensor
    sin: Tensor


class VisionTower:
    """Batched forward of `Qwen2_5OmniVisionEncoder`.

    Parameters
    ----------
    module : Module
        The library's vision encoder.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._merge = int(module.spatial_merge_size)
        self._window = int(module.window_size) // self._merge // int(module.patch_size)
        self._full = frozenset(module.fullatt_block_indexes)
        self._plans: dict[tuple[int, int, torch.device], Windows] = {}

    @torch.inference_mode()
    def __call__(
        self, patches: Tensor, grid: tuple[int, int, int], *, attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Embed frames; see `Adapter.encode_video`."""
        frames, height, width = grid
        size = height * width
        if patches.shape[0] != frames * size:
            raise ValueError(f"{patches.shape[0]} patches do not fill a grid of {grid}")
        weight = self._module.patch_embed.proj.weight
        plan = self._plan(height, width, weight.device)
        step = max(1, VISION_BATCH // size)
        parts, received = [], []
        for first in range(0, frames, step):
            rows = patches[first * size : (first + step) * size]
            embeds, scores = self._frames(
                rows.to(weight.device, weight.dtype), size, plan, attention
            )
            parts.append(embeds)
            if scores is not None:
                received.append(scores)
        return torch.cat(parts), torch.cat(received) if received else None

    def _frames(
        self, rows: Tensor, size: int, plan: Windows, attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Run a batch of whole frames, (b · size, channels · pixels) in the tower's dtype."""
        module, unit = self._module, self._merge**2
        hidden = self._embed(rows)
        frames, width = hidden.shape[0] // size, hidden.shape[1]
        hidden = hidden.view(frames, size // unit, unit * width)
        hidden = hidden.index_select(1, plan.tokens).view(frames, size, width)
        received = None
        for number, block in enumerate(module.blocks):
            groups = ((1, size),) if number in self._full else plan.groups
            last = attention and number == len(module.blocks) - 1
            out, received = self._attention(block.attn, block.norm1(hidden), plan, groups, last)
            hidden = hidden + out
            hidden = hidden + block.mlp(block.norm2(hidden))
        merged = module.merger(hidden.reshape(frames * size, width))
        merged = merged.view(frames, size // unit, -1).index_select(1, plan.back)
        if received is not None:
            received = received.view(frames, size // unit, unit).mean(-1)
            received = received.index_select(1, plan.back).flatten()
        return merged.flatten(0, 1), received

    def _embed(self, rows: Tensor) -> Tensor:
        """Embed patches: the library's convolution, whose windows do not overlap, as a product.

        In 16 bits on a CPU the two round differently now and then, so there it stays as it is.
        """
        embed = self._module.patch_embed
        if rows.device.type == "cpu" and rows.dtype != torch.float32:
            return embed(rows)
        return F.linear(rows, embed.proj.weight.flatten(1), embed.proj.bias)

    @staticmethod
    def _attention(
        attn: Any,
        hidden: Tensor,
        plan: Windows,
        groups: tuple[tuple[int, int], ...],
        weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        frames, size, _ = hidden.shape
        shape = (frames, size, attn.num_heads, -1)
        query, key = (
            rotate(states.view(shape).float(), plan.cos, plan.sin).to(hidden.dtype)
            for states in (attn.q(hidden), attn.k(hidden))
        )
        value = attn.v(hidden).view(shape)
        parts, scores, first = [], [], 0
        for count, length in groups:
            span = slice(first, first + count * length)
            first = span.stop
            batch = (frames * count, length, attn.num_heads, -1)
            inside = [x[:, span].reshape(batch) for x in (query, key, value)]
            out = attend(attn, *(x.transpose(1, 2) for x in inside), causal=False)
            parts.append(out.view(frames, count * length, -1))
            if weights:
                got = attention_received(inside[0], inside[1], attn.scaling)
                scores.append(got.view(frames, count * length))
        out = attn.proj(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
        return out, torch.cat(scores, dim=1) if weights else None

    def _plan(self, height: int, width: int, device: torch.device) -> Windows:
        """Plan the windows of a frame of height x width patches."""
        known = self._plans.get((height, width, device))
        if known is not None:
            return known
        merge, side = self._merge, self._window
        rows, columns = height // merge, width // merge
        tokens = torch.arange(rows * columns).view(rows, columns)
        windows = [
            tokens[i : i + side, j : j + side].flatten()
            for i in range(0, rows, side)
            for j in range(0, columns, side)
        ]
        windows.sort(key=len, reverse=True)
        lengths = [len(window) for window in windows]
        groups = tuple((lengths.count(n), n * merge**2) for n in sorted(set(lengths), reverse=True))
        order = torch.cat(windows)
        places = torch.stack(
            torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        )
        # (h, w) of each patch, by token, then within the token: the order patches come in.
        places = places.view(2, rows, merge, columns, merge).permute(1, 3, 2, 4, 0)
        places = places.reshape(rows * columns, merge**2, 2)[order].reshape(-1, 2).to(device)
        cos, sin = (
            part.unsqueeze(-2).float()
            for part in self._module.rotary_pos_emb(torch.empty(0, device=device), places)
        )
        plan = Windows(
            tokens=order.to(device),
            back=order.argsort().to(device),
            groups=groups,
            cos=cos,
            sin=sin,
        )
        while len(self._plans) >= PLANS:
            self._plans.pop(next(iter(self._plans)))
        self._plans[height, width, device] = plan
        return plan


class AudioTower:
    """Batched forward of `Qwen2_5OmniAudioEncoder`.

    Parameters
    ----------
    module : Module
        The library's audio encoder.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._window = 2 * int(module.n_window)

    @torch.inference_mode()
    def __call__(self, mel: Tensor, *, attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Embed sound; see `Adapter.encode_audio`."""
        module, window = self._module, self._window
        weight = module.conv1.weight
        if mel.ndim != 2 or mel.shape[0] != weight.shape[1]:
            raise ValueError(f"mel is {tuple(mel.shape)}, not ({weight.shape[1]}, F)")
        whole = mel.shape[1] // window
        step = window * AUDIO_BATCH
        pieces = [
            mel[:, first : min(first + step, whole * window)].unflatten(1, (-1, window))
            for first in range(0, whole * window, step)
        ]
        if mel.shape[1] % window:
            pieces.append(mel[:, whole * window :].unsqueeze(1))
        embeds, received = [], []
        for piece in pieces:
            batch = piece.transpose(0, 1).to(weight.device, weight.dtype)
            hidden, weights = self._windows(batch, attention)
            embeds.append(hidden.flatten(0, 1))
            if weights is not None:
                received.append(weights.flatten())
        if not embeds:
            return weight.new_empty((0, module.proj.out_features)), (
                torch.empty(0, device=weight.device) if attention else None
            )
        # A last position without a partner is not pooled.
        hidden = torch.cat(embeds)
        pairs = hidden[: len(hidden) // 2 * 2].unflatten(0, (-1, 2))
        pooled = module.proj(module.ln_post((pairs[:, 0] + pairs[:, 1]) / 2))
        if not attention:
            return pooled, None
        scores = torch.cat(received)
        return pooled, scores[: len(scores) // 2 * 2].unflatten(0, (-1, 2)).mean(1)

    def _windows(self, mel: Tensor, attention: bool) -> tuple[Tensor, Tensor | None]:
        """Run windows of one length, (b, mel_bins, f) in the tower's dtype."""
        module = self._module
        hidden = F.gelu(module.conv2(F.gelu(module.conv1(mel)))).transpose(1, 2)
        table = module.positional_embedding.positional_embedding
        hidden = hidden + table[: hidden.shape[1]].to(hidden.dtype)
        received = None
        for number, layer in enumerate(module.layers):
            last = attention and number == len(module.layers) - 1
            out, received = self._attention(
                layer.self_attn, layer.self_attn_layer_norm(hidden), last
            )
            hidden = hidden + out
            out = layer.fc1(layer.final_layer_norm(hidden))
            hidden = hidden + layer.fc2(layer.activation_fn(out))
            if hidden.dtype == torch.float16:
                limit = torch.finfo(hidden.dtype).max - 1000
                hidden = hidden.clamp(-limit, limit)
        return hidden, received

    @staticmethod
    def _attention(attn: Any, hidden: Tensor, weights: bool) -> tuple[Tensor, Tensor | None]:
        shape = (*hidden.shape[:2], attn.num_heads, -1)
        query, key, value = (
            project(hidden).view(shape) for project in (attn.q_proj, attn.k_proj, attn.v_proj)
        )
        out = attend(attn, *(x.transpose(1, 2) for x in (query, key, value)), causal=False)
        out = attn.out_proj(out)
        if not weights:
            return out, None
        return out, attention_received(query, key, attn.scaling)
