"""The encoders of Qwen2.5-Omni with windows of equal size in one batch, on transformers' weights.

The reference makes one attention call per window and layer; here all windows of one size are one
call. Attention never crosses a frame (vision) or a window of 2 s (audio), so both encoders process
any number of frames or seconds in batches of bounded size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from omnidrop.models import fused
from omnidrop.models.attention import attend
from omnidrop.models.encoding import attention_received, batch_size
from omnidrop.models.joining import Product, join, padded, widen
from omnidrop.models.uploading import Upload
from omnidrop.models.windows import Windows, attend_by_length, varlen_attention, window_bounds
from omnidrop.shapes import VISION_BATCH, VISION_BATCH_GPU

#: Windows (2 s each) in a batch of the audio encoder.
AUDIO_BATCH = 64
#: The same on a GPU.
AUDIO_BATCH_GPU = 256
#: Frame sizes whose window plan is cached.
PLANS = 4


class Products(NamedTuple):
    """A vision block's matrix products, joined and padded; see `omnidrop.models.joining`.

    Attributes
    ----------
    qkv : Product, width → 3 · width
    gate_up : Product, width → 2 · inner
    down : Product, inner → width
    """

    qkv: Product
    gate_up: Product
    down: Product

    @classmethod
    def of(cls, block: Any) -> Products | None:
        """Join a block's products; None if its linear layers are not plain ones."""
        attn, mlp = block.attn, block.mlp
        inner = padded(mlp.gate_proj.out_features)
        qkv = join((attn.q, attn.k, attn.v))
        gate_up = join((mlp.gate_proj, mlp.up_proj), inner)
        down = widen(mlp.down_proj, inner)
        if qkv is None or gate_up is None or down is None:
            return None
        return cls(qkv, gate_up, down)


class VisionTower:
    """Batched forward of `Qwen2_5OmniVisionEncoder`.

    Parameters
    ----------
    module : Module
        The vision encoder of transformers.
    joined : bool, optional
        Join the matrix products of a block and pad them for fast kernels. The module's parameters
        become views of the joined ones. Default: only on a CUDA device.
    """

    def __init__(self, module: Any, *, joined: bool | None = None) -> None:
        self._module = module
        weight = module.patch_embed.proj.weight
        if joined is None:
            joined = weight.device.type == "cuda"
        self._products: list[Products | None] = [None] * len(module.blocks)
        if joined and module.config.hidden_act == "silu":
            self._products = [Products.of(block) for block in module.blocks]
        self._upload = Upload(weight.device, weight.dtype)
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
        plan = self._plan(height, width, self._upload.device)
        step = self._step(frames, size)
        parts, received = [], []
        for first in range(0, frames, step):
            rows = patches[first * size : (first + step) * size]
            embeds, scores = self._frames(self._upload.send(rows), size, plan, attention)
            parts.append(embeds)
            if scores is not None:
                received.append(scores)
        return torch.cat(parts), torch.cat(received) if received else None

    def _step(self, frames: int, size: int) -> int:
        """Return how many frames, of `size` patches each, are in a batch."""
        config, device = self._module.config, self._upload.device
        wide = 6 * config.hidden_size + 3 * config.intermediate_size
        pixels = self._module.patch_embed.proj.weight[0].numel()
        room = (wide + pixels) * self._upload.dtype.itemsize
        step = max(1, batch_size(device, VISION_BATCH, VISION_BATCH_GPU, room) // size)
        if device.type == "cpu":
            return step
        batches = -(-frames // step)  # of equal size: a small last batch would be inefficient
        return -(-frames // batches) if batches else step

    def _frames(
        self, rows: Tensor, size: int, plan: Windows, attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Encode a batch of whole frames, (b · size, channels · pixels) in the encoder's dtype."""
        module, unit = self._module, self._merge**2
        hidden = self._embed(rows)
        frames, width = hidden.shape[0] // size, hidden.shape[1]
        hidden = hidden.view(frames, size // unit, unit * width)
        hidden = hidden.index_select(1, plan.tokens).view(frames * size, width)
        received, bounds = None, self._bounds(plan, frames, hidden)
        for number, block in enumerate(module.blocks):
            products = self._products[number]
            groups = ((1, size),) if number in self._full else plan.groups
            last = attention and number == len(module.blocks) - 1
            states = self._queries_keys_values(
                block.attn, products, _normed(block.norm1, hidden), plan, frames
            )
            if bounds is not None and len(groups) > 1 and not last:
                hidden += block.attn.proj(attend_by_length(states, bounds, groups))
            else:
                out, received = self._attention(block.attn, states, groups, last)
                hidden += out
            hidden += self._mlp(block.mlp, products, _normed(block.norm2, hidden))
        merged = module.merger.mlp(_normed(module.merger.ln_q, hidden).view(-1, unit * width))
        merged = merged.view(frames, size // unit, -1).index_select(1, plan.back)
        if received is not None:
            received = received.view(frames, size // unit, unit).mean(-1)
            received = received.index_select(1, plan.back).flatten()
        return merged.flatten(0, 1), received

    def _bounds(self, plan: Windows, frames: int, like: Tensor) -> Tensor | None:
        """Return the bounds of a batch's windows, for attention in one call.

        None if all windows have one length, or PyTorch has no such call.
        """
        if (
            len(plan.groups) == 1
            or not like.is_cuda
            or like.dtype not in (torch.bfloat16, torch.float16)
            or self._module.config._attn_implementation != "sdpa"
            or torch.cuda.get_device_capability(like.device) < (8, 0)
            or varlen_attention() is None
        ):
            return None
        return window_bounds(plan.groups, frames).pin_memory().to(like.device, non_blocking=True)

    def _embed(self, rows: Tensor) -> Tensor:
        """Embed patches: a convolution without overlap, computed as a matrix product.

        In 16 bits on a CPU the two sometimes round differently, so there the convolution is used.
        """
        embed = self._module.patch_embed
        if rows.device.type == "cpu" and rows.dtype != torch.float32:
            return embed(rows)
        return F.linear(rows, embed.proj.weight.flatten(1), embed.proj.bias)

    @staticmethod
    def _queries_keys_values(
        attn: Any, products: Products | None, normed: Tensor, plan: Windows, frames: int
    ) -> tuple[Tensor, ...]:
        """Return rotated queries and keys, and values, (frames, size, heads, head_dim) each."""
        heads, width = attn.num_heads, normed.shape[-1]
        shape = (frames, normed.shape[0] // frames, heads, width // heads)
        if products is None:
            query, key = (
                fused.rotate(project(normed).view(shape), plan.cos, plan.sin)
                for project in (attn.q, attn.k)
            )
            return query, key, attn.v(normed).view(shape)
        both, value = products.qkv(normed).split((2 * width, width), dim=-1)
        # Queries and keys are rotated in one call, in place.
        both = both.view(*shape[:2], 2 * heads, shape[3])
        fused.rotate(both, plan.cos, plan.sin, inplace=True)
        return *both.chunk(2, dim=2), value.view(shape)

    @staticmethod
    def _attention(
        attn: Any,
        states: tuple[Tensor, ...],
        groups: tuple[tuple[int, int], ...],
        weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend inside the windows of every frame; see `Windows` for their order.

        Returns
        -------
        Tensor, (frames · size, width)
        Tensor or None, (frames, size) float32
            Attention that each patch received, if `weights` is true.
        """
        frames, size, heads, _ = states[0].shape
        parts, scores, first = [], [], 0
        for count, length in groups:
            span = slice(first, first + count * length)
            first = span.stop
            batch = (frames * count, length, heads, -1)
            inside = [x[:, span].reshape(batch) for x in states]
            out = attend(attn, *(x.transpose(1, 2) for x in inside), causal=False)
            parts.append(out.view(frames, count * length, -1))
            if weights:
                got = attention_received(inside[0], inside[1], attn.scaling)
                scores.append(got.view(frames, count * length))
        out = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        out = attn.proj(out.view(frames * size, -1))
        return out, torch.cat(scores, dim=1) if weights else None

    @staticmethod
    def _mlp(mlp: Any, products: Products | None, normed: Tensor) -> Tensor:
        if products is None:
            return mlp(normed)
        gate, up = products.gate_up(normed).chunk(2, dim=-1)
        return products.down(fused.silu_mul(gate, up))

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
        # (h, w) of each patch, by token, then within the token: the order of the input.
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


def _normed(norm: Any, rows: Tensor) -> Tensor:
    return fused.rms_norm(rows, norm.weight, norm.variance_epsilon)


class AudioTower:
    """Batched forward of `Qwen2_5OmniAudioEncoder`.

    Parameters
    ----------
    module : Module
        The audio encoder of transformers.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._window = 2 * int(module.n_window)
        self._upload = Upload(module.conv1.weight.device, module.conv1.weight.dtype)

    @torch.inference_mode()
    def __call__(self, mel: Tensor, *, attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Embed log-mel; see `Adapter.encode_audio`."""
        module, window = self._module, self._window
        weight = module.conv1.weight
        if mel.ndim != 2 or mel.shape[0] != weight.shape[1]:
            raise ValueError(f"mel is {tuple(mel.shape)}, not ({weight.shape[1]}, F)")
        whole = mel.shape[1] // window
        step = window * self._step(whole)
        pieces = [
            mel[:, first : min(first + step, whole * window)].unflatten(1, (-1, window))
            for first in range(0, whole * window, step)
        ]
        if mel.shape[1] % window:
            pieces.append(mel[:, whole * window :].unsqueeze(1))
        embeds, received = [], []
        for piece in pieces:
            hidden, weights = self._windows(self._upload.send(piece.transpose(0, 1)), attention)
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

    def _step(self, windows: int) -> int:
        """Return how many windows are in a batch."""
        config, device = self._module.config, self._upload.device
        wide = 10 * config.d_model + 2 * config.encoder_ffn_dim
        room = self._window * wide * self._upload.dtype.itemsize
        step = batch_size(device, AUDIO_BATCH, AUDIO_BATCH_GPU, room)
        if device.type == "cpu" or not windows:
            return step
        return -(-windows // -(-windows // step))

    def _windows(self, mel: Tensor, attention: bool) -> tuple[Tensor, Tensor | None]:
        """Encode windows of one length, (b, mel_bins, f) in the encoder's dtype."""
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
