"""The encoders of Qwen3-Omni with frames and windows in batches, on transformers' weights.

The reference makes one attention call per frame or window and layer; here all of one size are one
call. Attention never crosses a frame (vision) or a window of 8 s (audio), so both encoders process
any number of frames or seconds in batches of bounded size.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

from omnidrop.models import fused
from omnidrop.models.adapter import Embeds
from omnidrop.models.attention import attend
from omnidrop.models.encoding import attention_received, batch_size
from omnidrop.models.uploading import Upload
from omnidrop.shapes import VISION_BATCH, VISION_BATCH_GPU

#: Windows (8 s each) in a batch of the audio encoder.
AUDIO_BATCH = 4
#: The same on a GPU.
AUDIO_BATCH_GPU = 32
#: Frame sizes whose positions are cached.
PLANS = 4


class Places(NamedTuple):
    """Positions of the patches of a frame, in the order of the encoder's input.

    Attributes
    ----------
    embeds : Tensor, (h · w, width) float32
        The learned table of positions, interpolated to the frame's size.
    cos, sin : Tensor, (h · w, 1, head_dim) float32
        Rotary angles.
    """

    embeds: Tensor
    cos: Tensor
    sin: Tensor


class VisionTower:
    """Batched forward of `Qwen3OmniMoeVisionEncoder`.

    Parameters
    ----------
    module : Module
        The vision encoder of transformers.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        weight = module.patch_embed.proj.weight
        self._upload = Upload(weight.device, weight.dtype)
        self._merge = int(module.spatial_merge_size)
        self._deep = {
            int(block): merger
            for block, merger in zip(
                module.deepstack_visual_indexes, module.merger_list, strict=True
            )
        }
        self._places: dict[tuple[int, int, torch.device], Places] = {}

    @torch.inference_mode()
    def __call__(
        self, patches: Tensor, grid: tuple[int, int, int], *, attention: bool = False
    ) -> Embeds:
        """Embed frames; see `Adapter.encode_video`."""
        frames, height, width = grid
        size = height * width
        if patches.shape[0] != frames * size:
            raise ValueError(f"{patches.shape[0]} patches do not fill a grid of {grid}")
        places = self._placed(height, width, self._upload.device)
        step = self._step(frames, size)
        parts = [
            self._frames(
                self._upload.send(patches[first * size : (first + step) * size]),
                size,
                places,
                attention,
            )
            for first in range(0, frames, step)
        ]
        planes = tuple(torch.cat(same) for same in zip(*(p.planes for p in parts), strict=True))
        received = [part.received for part in parts if part.received is not None]
        return Embeds(planes, torch.cat(received) if received else None)

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

    def _frames(self, rows: Tensor, size: int, places: Places, attention: bool) -> Embeds:
        """Encode a batch of whole frames, (b · size, channels · pixels) in the encoder's dtype."""
        module, unit = self._module, self._merge**2
        hidden = self._embed(rows)
        frames = len(hidden) // size
        table = places.embeds.to(hidden.dtype)
        hidden = (hidden.view(frames, size, -1) + table).flatten(0, 1)
        deep, received = [], None
        for number, block in enumerate(module.blocks):
            last = attention and number == len(module.blocks) - 1
            out, received = self._attention(block.attn, block.norm1(hidden), frames, places, last)
            hidden = hidden + out
            hidden = hidden + block.mlp(block.norm2(hidden))
            if number in self._deep:
                deep.append(self._deep[number](hidden))
        if received is not None:
            received = received.view(-1, unit).mean(-1)
        return Embeds((module.merger(hidden), *deep), received)

    def _embed(self, rows: Tensor) -> Tensor:
        """Embed patches: a convolution without overlap, computed as a matrix product.

        In 16 bits on a CPU the two sometimes round differently, so there the convolution is used.
        """
        embed = self._module.patch_embed
        if rows.device.type == "cpu" and rows.dtype != torch.float32:
            embedded: Tensor = embed(rows)
            return embedded
        return F.linear(rows, embed.proj.weight.flatten(1), embed.proj.bias)

    @staticmethod
    def _attention(
        attn: Any, normed: Tensor, frames: int, places: Places, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attend inside every frame.

        Returns
        -------
        Tensor, (frames · size, width)
        Tensor or None, (frames, size) float32
            Attention that each patch received, if `weights` is true.
        """
        heads = attn.num_heads
        states = attn.qkv(normed).view(frames, len(normed) // frames, 3 * heads, -1)
        # Queries and keys are rotated in one call, in place.
        fused.rotate(states[:, :, : 2 * heads], places.cos, places.sin, inplace=True)
        query, key, value = states.chunk(3, dim=2)
        out = attend(attn, *(x.transpose(1, 2) for x in (query, key, value)), causal=False)
        out = attn.proj(out.flatten(0, 1))
        return out, attention_received(query, key, attn.scaling) if weights else None

    def _placed(self, height: int, width: int, device: torch.device) -> Places:
        """Return the positions of the patches of a frame of height x width patches."""
        known = self._places.get((height, width, device))
        if known is not None:
            return known
        # Planned on the host, as the reference's functions read sizes from it.
        module, frame = self._module, torch.tensor([[1, height, width]])
        indices, shares = get_vision_interpolation_indices_and_weights(
            frame,
            num_grid_per_side=module.num_grid_per_side,
            mode=module.interpolation_mode,
            align_corners=module.interpolation_align_corners,
            spatial_merge_size=self._merge,
        )
        indices, shares = indices.to(device), shares.to(device)
        cells = get_vision_position_ids(frame, self._merge).to(device)
        cos, sin = module.rotary_pos_emb(shares, cells)
        places = Places(
            embeds=(module.pos_embed(indices) * shares[:, :, None]).sum(1),
            cos=cos.unsqueeze(-2).float(),
            sin=sin.unsqueeze(-2).float(),
        )
        while len(self._places) >= PLANS:
            self._places.pop(next(iter(self._places)))
        self._places[height, width, device] = places
        return places


class AudioTower:
    """Batched forward of `Qwen3OmniMoeAudioEncoder`.

    Convolutions see one chunk of a second at a time, the last one padded with silence if it is not
    the only one; attention sees a window of several chunks.

    Parameters
    ----------
    module : Module
        The audio encoder of transformers.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._chunk = 2 * int(module.n_window)
        self._window = int(module.n_window_infer) // self._chunk
        weight = module.conv2d1.weight
        self._upload = Upload(weight.device, weight.dtype)

    @torch.inference_mode()
    def __call__(self, mel: Tensor, *, attention: bool = False) -> Embeds:
        """Embed log-mel; see `Adapter.encode_audio`."""
        module, bins = self._module, self._module.num_mel_bins
        if mel.ndim != 2 or mel.shape[0] != bins:
            raise ValueError(f"mel is {tuple(mel.shape)}, not ({bins}, F)")
        parts, received = [], []
        for chunks, tokens in self._batches(mel):
            hidden = self._convolved(self._upload.send(chunks))
            embeds, weights = self._attended(hidden.flatten(0, 1)[:tokens], attention)
            parts.append(embeds)
            if weights is not None:
                received.append(weights)
        if not parts:
            weight = module.proj2.weight
            none = torch.empty(0, device=weight.device)
            return Embeds((weight.new_empty((0, len(weight))),), none if attention else None)
        return Embeds((torch.cat(parts),), torch.cat(received) if received else None)

    def _batches(self, mel: Tensor) -> list[tuple[Tensor, int]]:
        """Split log-mel into batches of whole windows.

        Returns
        -------
        list of (Tensor, int)
            Chunks, (b, mel_bins, f), and the number of tokens that are not of padding.
        """
        frames, chunk = mel.shape[1], self._chunk
        if 0 < frames < chunk:
            return [(mel.unsqueeze(0), self._tokens(frames))]
        padded = F.pad(mel, (0, -frames % chunk)).unflatten(1, (-1, chunk)).transpose(0, 1)
        step = self._step(len(padded))
        counts = [self._tokens(min(chunk, frames - at)) for at in range(0, frames, chunk)]
        return [
            (padded[at : at + step], sum(counts[at : at + step]))
            for at in range(0, len(padded), step)
        ]

    @staticmethod
    def _tokens(frames: int) -> int:
        """Return the tokens that three convolutions of stride 2 make of a chunk."""
        for _ in range(3):
            frames = (frames + 1) // 2
        return frames

    def _step(self, chunks: int) -> int:
        """Return how many chunks are in a batch."""
        config, device = self._module.config, self._upload.device
        # The first convolution has a quarter of the inputs and all channels.
        outputs = config.downsample_hidden_size * config.num_mel_bins * self._chunk // 4
        room = self._window * 3 * outputs * self._upload.dtype.itemsize
        step = self._window * batch_size(device, AUDIO_BATCH, AUDIO_BATCH_GPU, room)
        if device.type == "cpu" or not chunks:
            return step
        windows = -(-chunks // self._window)
        batches = -(-chunks // step)
        return self._window * -(-windows // batches)

    def _convolved(self, chunks: Tensor) -> Tensor:
        """Return the states that enter the layers, (b, t, width), of chunks (b, mel_bins, f)."""
        module, hidden = self._module, chunks.unsqueeze(1)
        for convolution in (module.conv2d1, module.conv2d2, module.conv2d3):
            hidden = F.gelu(convolution(hidden))
        hidden = module.conv_out(hidden.permute(0, 3, 1, 2).flatten(2))
        table = module.positional_embedding.positional_embedding
        states: Tensor = hidden + table[: hidden.shape[1]].to(hidden.dtype)
        return states

    def _attended(self, rows: Tensor, attention: bool) -> tuple[Tensor, Tensor | None]:
        """Run the layers over rows, (n, width), window by window."""
        module, size = self._module, self._window * self._tokens(self._chunk)
        whole = len(rows) // size * size
        parts, received = [], []
        for windows in (rows[:whole].unflatten(0, (-1, size)), rows[whole:].unsqueeze(0)):
            if windows.numel():
                hidden, weights = self._layers(windows, attention)
                parts.append(hidden.flatten(0, 1))
                if weights is not None:
                    received.append(weights.flatten())
        hidden = module.proj1(module.ln_post(torch.cat(parts)))
        return module.proj2(module.act(hidden)), torch.cat(received) if received else None

    def _layers(self, hidden: Tensor, attention: bool) -> tuple[Tensor, Tensor | None]:
        """Run the layers over windows of one length, (b, n, width)."""
        received = None
        for number, layer in enumerate(self._module.layers):
            last = attention and number == len(self._module.layers) - 1
            normed = layer.self_attn_layer_norm(hidden)
            out, received = self._attention(layer.self_attn, normed, last)
            hidden = hidden + out
            out = layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden)))
            hidden = hidden + layer.fc2(out)
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
        return out, attention_received(query, key, attn.scaling) if weights else None
