"""Qwen2.5-Omni's audio encoder with windows of equal size in one batch, on transformers' weights.

The reference makes one attention call per window and layer; here all windows of one size are one
call. Attention never crosses a window of 2 s, so any length is encoded in batches of bounded size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from omnidrop.models.attention import attend
from omnidrop.models.encoding import attention_received, batch_size
from omnidrop.models.uploading import Upload

#: Windows (2 s each) in a batch of the audio encoder.
AUDIO_BATCH = 64
#: The same on a GPU.
AUDIO_BATCH_GPU = 256


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
