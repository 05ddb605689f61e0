"""EchoingPixels on the demo model: the decoder's forward pass for training, behind a refiner.

A row of a batch has one question, since the refiner reads the question before the clip is chosen.
`train_language` trains this trunk as any other: what it learns is the answers' cross-entropy alone.
"""

from __future__ import annotations

import torch

from omnidrop.models import sync_rope
from omnidrop.pruning.parts.refiner import SHARE, Refiner, Shape, passed, straight_through
from omnidrop.rotary import sync_sections

from .batches import Batch
from .precision import working_dtype
from .shape import parts
from .trunk import Trunk, _norm


def refiner_for(model: torch.nn.Module) -> Refiner:
    """Turn the decoder's rotary embedding into Sync-RoPE; return copies of its first layers."""
    text = parts(model).text
    config, attention = text.config, text.layers[0].self_attn
    sections = sync_sections(attention.head_dim // 2)
    config.rope_parameters["mrope_section"] = list(sections)
    sync_rope.install(model)
    shape = Shape(
        width=int(config.hidden_size),
        inner=int(config.intermediate_size),
        heads=int(config.num_attention_heads),
        kv_heads=int(config.num_key_value_heads),
        head_dim=int(attention.head_dim),
        sections=sections,
        theta=float(config.rope_parameters["rope_theta"]),
        eps=float(config.rms_norm_eps),
    )
    refiner = Refiner(shape)
    refiner.copy_layers(text.layers)
    return refiner


class RefinedTrunk(Trunk):
    """The decoder behind a refiner, which lets a share of the clip enter.

    Parameters
    ----------
    text, head : Module
        The decoder with Sync-RoPE, and its head.
    refiner : Refiner
    share : float
        Share of the clip's tokens that enter, rounded up (published).
    gumbel : Generator, optional
        Adds Gumbel noise to the scores in training (public code: an alternative).
    """

    def __init__(
        self,
        text: torch.nn.Module,
        head: torch.nn.Module,
        refiner: Refiner,
        share: float = SHARE,
        gumbel: torch.Generator | None = None,
    ) -> None:
        super().__init__(text, head)
        self.probes = torch.nn.ModuleDict()
        self.refiner, self.share, self.gumbel = refiner, share, gumbel

    def forward(
        self, batch: Batch, cut: int | None = None, keep: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return answer logits (answers, vocabulary) and no probes; `cut`, `keep` are unused."""
        first, last = batch.blocks
        count, length = batch.ids.shape
        every = torch.arange(count, device=batch.ids.device)
        assert torch.equal(batch.rows[batch.first], every), "one question for each row"
        x = self.embed(batch.ids)
        self.gaze_loss = self.name_loss = x.new_zeros(())
        x = torch.cat([x[:, :first], batch.av.to(x.dtype), x[:, last:]], 1)
        # What the question's last row may attend to: the prompt, neither padding nor the answer.
        prompt = batch.mask[every, 0, batch.cols[batch.first]]
        cast = working_dtype(x.device)
        with torch.autocast(x.device.type, cast, enabled=cast != torch.float32):
            refined = self.refiner(x, batch.positions, prompt).float()
        x = torch.where(prompt[..., None], refined, x)
        cos, sin = self.text.rotary_emb(x, batch.positions)

        place, there, soft = self._choose(x[:, first:last], batch.real)
        clip = torch.gather(x[:, first:last], 1, place[..., None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, :first], straight_through(clip, soft), x[:, last:]], 1)
        columns = torch.arange(length, device=x.device).expand(count, -1)
        index = torch.cat([columns[:, :first], place + first, columns[:, last:]], 1)
        mask = batch.mask[:, 0][every[:, None, None], index[:, :, None], index[:, None, :]]
        mask[:, :, first : first + place.shape[1]] &= there[:, None]
        mask |= torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)

        at = index[..., None].expand(-1, -1, cos.shape[-1])
        cos, sin = (torch.gather(part, 1, at)[:, None].to(cast) for part in (cos, sin))
        bias = torch.zeros(mask.shape, dtype=cast, device=x.device).masked_fill_(~mask, -1e9)
        end = first + place.shape[1]
        before, after = bias[:, None, :end, :end], bias[:, None, end:]
        for layer in self.text.layers:
            x = self.block(x, *self.weights(layer), cos, sin, before, after, self.eps)
        cols = batch.cols - (last - end)
        out = _norm(x[batch.rows, cols], self.text.norm.weight, self.eps)
        return self.head(out.float()), {}

    def _choose(
        self, clip: torch.Tensor, real: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Choose the tokens of each row that enter.

        Parameters
        ----------
        clip : (B, A, width), refined
        real : (B, A) bool, not padding

        Returns
        -------
        place : (B, k) indices into the clip, ascending; those of rows that keep fewer end with
            others
        there : (B, k) bool, which of them are kept
        soft : (B, k) the soft choice of each
        """
        scores = self.refiner.score(clip).masked_fill(~real, -torch.inf)
        soft = passed(scores, generator=self.gumbel if self.training else None)
        wanted = (real.sum(1) * self.share).ceil().clamp_min(1).long()
        most = int(wanted.max())
        order = soft.argsort(dim=1, descending=True, stable=True)[:, :most]
        ranked = torch.arange(most, device=clip.device) < wanted[:, None]
        place = torch.where(ranked, order, real.shape[1]).sort(dim=1).values
        there = place < real.shape[1]
        place = place.clamp_max(real.shape[1] - 1)
        return place, there, torch.gather(soft, 1, place)
