"""The decoder's forward pass for training: packed rows, with clip tokens that can be removed.

It uses the weights of transformers' layers; tests compare it with transformers' forward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .batches import PROBES, Batch
from .precision import working_dtype


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, clip: torch.Tensor, text: torch.Tensor
) -> torch.Tensor:
    """Compute the attention of packed rows: clip to clip, then questions to clip and questions.

    `clip` (B, 1, P, P) and `text` (B, 1, T, P + T) are masks that are added to the scores. Plain
    matrix products are used, because their backward pass on a CPU is several times faster than that
    of the fused kernel.
    """
    prefix = clip.shape[-1]
    q = q * 0.125
    here = torch.softmax(q[:, :, :prefix] @ k[:, :, :prefix].transpose(-1, -2) + clip, -1)
    there = torch.softmax(q[:, :, prefix:] @ k.transpose(-1, -2) + text, -1)
    return torch.cat([here @ v[:, :, :prefix], there @ v], 2)


def block(x, n1, wq, bq, wk, bk, wv, bv, wo, n2, wg, wu, wd, cos, sin, clip, text, eps):
    """Run a decoder layer, given its weights, so that all layers share one compilation."""
    b, n, _ = x.shape
    h = _norm(x, n1, eps).to(wq.dtype)
    q = F.linear(h, wq, bq).view(b, n, -1, 64).transpose(1, 2)
    k = F.linear(h, wk, bk).view(b, n, -1, 64).transpose(1, 2)
    v = F.linear(h, wv, bv).view(b, n, -1, 64).transpose(1, 2)
    groups = q.shape[1] // k.shape[1]
    q, k = _turn(q, cos, sin), _turn(k, cos, sin)
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    y = attend(q, k, v, clip, text)
    x = x + F.linear(y.transpose(1, 2).reshape(b, n, -1), wo)
    h = _norm(x, n2, eps).to(wg.dtype)
    return x + F.linear(F.silu(F.linear(h, wg)) * F.linear(h, wu), wd)


class Trunk(nn.Module):
    """The demo model's decoder, plus probes that are discarded after training."""

    def __init__(
        self, text: nn.Module, head: nn.Module, probe_layer: int = 6, compiled: bool = False
    ) -> None:
        super().__init__()
        self.text, self.head, self.probe_layer = text, head, probe_layer
        self.eps = text.norm.variance_epsilon
        self.gaze_layer = len(text.layers) // 2
        self.gaze_loss = self.name_loss = torch.zeros(())
        width = head.in_features
        self.probes = nn.ModuleDict({k: nn.Linear(width, n) for k, n in PROBES.items()})
        self.block = torch.compile(block, dynamic=True) if compiled else block

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of text."""
        return self.text.embed_tokens(ids)

    def project(self, av: torch.Tensor) -> torch.Tensor:
        """Return what the decoder gets of the encoders' output."""
        return av

    def weights(self, layer: nn.Module) -> tuple[torch.Tensor, ...]:
        """Return the weights of a layer in the order of `block`, matrices in the working dtype."""
        a, m = layer.self_attn, layer.mlp
        cast = working_dtype(a.q_proj.weight.device)
        return (
            layer.input_layernorm.weight,
            a.q_proj.weight.to(cast),
            a.q_proj.bias.to(cast),
            a.k_proj.weight.to(cast),
            a.k_proj.bias.to(cast),
            a.v_proj.weight.to(cast),
            a.v_proj.bias.to(cast),
            a.o_proj.weight.to(cast),
            layer.post_attention_layernorm.weight,
            m.gate_proj.weight.to(cast),
            m.up_proj.weight.to(cast),
            m.down_proj.weight.to(cast),
        )

    def gaze(
        self,
        x: torch.Tensor,
        layer: nn.Module,
        batch: Batch,
        cos: torch.Tensor,
        sin: torch.Tensor,
        where: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Return the gaze loss: it is low if two heads of a layer attend to the wanted clip tokens.

        `where` holds row and column of the query tokens and, per clip token, whether it is wanted.
        The loss is minus the log of the share of attention (among clip tokens) that wanted tokens
        get, averaged.
        """
        rows, cols, seen = where
        a, b = batch.blocks
        at = layer.self_attn
        h = _norm(x, layer.input_layernorm.weight, self.eps)
        q = F.linear(h[rows, cols], at.q_proj.weight, at.q_proj.bias).unflatten(-1, (-1, 64))[:, :2]
        q = _turn(q, cos[rows, :, cols].float(), sin[rows, :, cols].float()) / 8
        k = F.linear(h[:, a:b], at.k_proj.weight, at.k_proj.bias)
        k = _turn(k, cos[:, 0, a:b].float(), sin[:, 0, a:b].float())
        score = torch.einsum("nhd,nad->nha", q, k[rows])
        score = score.masked_fill(~batch.real[rows][:, None], -1e9).log_softmax(-1)
        return -score.masked_fill(~seen[:, None], -1e9).logsumexp(-1).mean()

    def forward(
        self,
        batch: Batch,
        cut: int | None = None,
        keep: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return answer logits (answers, vocabulary) and probe logits.

        Parameters
        ----------
        cut : remove all clip tokens before this layer
        keep : (B, A) bool, clip tokens that enter the first layer (for evaluation only)
        """
        a, b = batch.blocks
        x = self.embed(batch.ids)
        self.gaze_loss = self.name_loss = x.new_zeros(())
        x = torch.cat([x[:, :a], self.project(batch.av).to(x.dtype), x[:, b:]], 1)
        mask = batch.mask
        if keep is not None:
            mask = mask.clone()
            mask[:, 0, :, a:b] &= keep[:, None, :]
            mask |= torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
        cos, sin = self.text.rotary_emb(x, batch.positions)
        cast = working_dtype(x.device)
        cos, sin = cos[:, None].to(cast), sin[:, None].to(cast)
        bias = torch.zeros(mask.shape, dtype=cast, device=mask.device).masked_fill_(~mask, -1e9)
        clip, asked = bias[:, :, :b, :b], bias[:, :, b:]
        probed: dict[str, torch.Tensor] = {}
        cols, on = batch.cols, batch.gaze.any(1)
        for i, layer in enumerate(self.text.layers):
            if cut is not None and i == cut:
                text = torch.arange(x.shape[1], device=x.device)
                text = text[(text < a) | (text >= b)]
                x, cos, sin = x[:, text], cos[:, :, text], sin[:, :, text]
                clip, asked = clip[:, :, :a, :a], torch.cat([asked[..., :a], asked[..., b:]], -1)
                cols = cols - (b - a)
            if i == self.gaze_layer and self.training and bool(on.any()):
                self.gaze_loss = self.gaze(
                    x,
                    layer,
                    batch,
                    cos,
                    sin,
                    (batch.rows[batch.first][on], batch.cols[batch.first][on], batch.gaze[on]),
                )
            if (
                i == self.gaze_layer - len(self.text.layers) // 8
                and self.training
                and len(batch.named[0])
            ):
                self.name_loss = self.gaze(x, layer, batch, cos, sin, batch.named)
            x = self.block(x, *self.weights(layer), cos, sin, clip, asked, self.eps)
            if i + 1 == self.probe_layer and self.training:
                mid = F.layer_norm(x[:, a:b].float(), x.shape[-1:])
                probed = {k: p(mid) for k, p in self.probes.items()}
        out = _norm(x[batch.rows, cols], self.text.norm.weight, self.eps)
        return self.head(out.float()), probed
