"""The lab model's forward pass for training: the demo recipe's, with a projector before it."""

from __future__ import annotations

import torch
from recipe.batches import Batch, Collator
from recipe.trunk import Trunk
from torch import nn

MARKERS = ("<|audio_bos|>", "<|audio_eos|>", "<|vision_bos|>", "<|vision_eos|>")


class LabCollator(Collator):
    """Turns samples and questions into batches; nothing is taught about where to attend."""

    def __init__(self, tok) -> None:
        super().__init__(tok)
        self.names = {}


class LabTrunk(Trunk):
    """Projector, markers and decoder; the word embeddings and the head stay as they are.

    Parameters
    ----------
    text, head : Module
        Of the thinker.
    projector : Linear
        From the encoders' output to the decoder's width.
    markers : list of int
        Ids of the clip's markers, whose embeddings are learned.
    """

    def __init__(
        self, text: nn.Module, head: nn.Module, projector: nn.Linear, markers: list[int]
    ) -> None:
        super().__init__(text, head)
        self.probes = nn.ModuleDict()
        self.gaze_layer = 2 * len(text.layers)  # none: no gaze loss
        self.projector = projector
        self.ids = markers
        self.markers = nn.Parameter(text.embed_tokens.weight[markers].detach().clone())
        for frozen in (text.embed_tokens, head):
            frozen.requires_grad_(False)
        for layer in text.layers:
            for name in ("q_proj", "k_proj", "v_proj"):
                getattr(layer.self_attn, name).bias.requires_grad_(False)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of text, those of the markers as learned."""
        x = self.text.embed_tokens(ids)
        for i, marker in enumerate(self.ids):
            x = torch.where((ids == marker)[..., None], self.markers[i], x)
        return x

    def project(self, av: torch.Tensor) -> torch.Tensor:
        """Return the encoders' output in the decoder's width."""
        return self.projector(av)

    def learned(self) -> dict[str, torch.Tensor]:
        """Return the weights that training changes."""
        return {name: p.detach() for name, p in self.named_parameters() if p.requires_grad}

    def read(self, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, L, V) of plain text, padded at the end where not `real`."""
        b, n = ids.shape
        places = torch.arange(n, device=ids.device)
        mask = (places[:, None] >= places)[None] & real[:, None, :]
        mask = mask | torch.eye(n, dtype=torch.bool, device=ids.device)
        nothing = torch.zeros(0, dtype=torch.long, device=ids.device)
        text = Batch(
            ids=ids,
            av=torch.zeros(b, 0, self.projector.in_features, device=ids.device),
            positions=places.expand(3, b, n),
            mask=mask[:, None],
            blocks=(n, n),
            rows=torch.arange(b, device=ids.device)[:, None].expand(b, n),
            cols=places.expand(b, n),
            want=nothing,
            first=nothing.bool(),
            probes={},
            questions=[],
            gaze=torch.zeros(0, 0, dtype=torch.bool, device=ids.device),
            real=torch.zeros(b, 0, dtype=torch.bool, device=ids.device),
            named=(nothing, nothing, nothing),
        )
        return self(text)[0]
