"""EchoingPixels: a trained refiner reads the whole prompt, scores the clip, and rewrites both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from omnidrop.errors import UsageError
from omnidrop.pruning.method import Backbone, Entry, EntryView, Need, Plan
from omnidrop.pruning.parts import refiner as parts
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.select import top


@dataclass(frozen=True)
class EchoingPixels(EntryMethod):
    """Keeps what a trained refiner scores highest of audio and video together, in refined form.

    Based on EchoingPixels (https://arxiv.org/abs/2512.10324) and its public code.

    Published:

    - Four layers shaped like the decoder's, copied from its first four, run over the whole prompt
      without a causal mask. RMSNorm, a linear layer, SiLU and a linear layer to one number score
      the audio and video; the highest 20 % stay, whichever of the two they are.
    - What enters the decoder are the refined states, those of the text too. Generated tokens are
      not refined.
    - Sync-RoPE, in refiner and decoder: the pairs of a head turn by time, row, column and time
      again, 18, 18, 18 and 10 of 64, so that the lowest frequencies belong to time.
    - Refiner and decoder are trained together by the answer's cross-entropy, with a
      straight-through estimate over the softmax of the scores; the encoders stay as they are.

    Ours: heads of other sizes have sections in the same proportion. At a budget of 1 everything
    enters, refined, since the decoder has learned from nothing else. The refiner is computed in
    float32; its four layers see every token, which FLOPs and memory of reports and estimates
    count. No weights are published, so the method is refused with a model that has no refiner of
    its own.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    refiner : str, optional
        Folder of a refiner; None takes the one in the model's own folder, where the training puts
        it. One that was trained together with a decoder serves that alone.
    """

    name: ClassVar[str] = "echoingpixels"
    wants: ClassVar[frozenset[str]] = frozenset({Need.QUESTION, Need.PROMPT})
    question_free: ClassVar[bool] = False
    own_layers: ClassVar[int] = parts.LAYERS
    files: ClassVar[frozenset[str]] = frozenset({"refiner"})

    refiner: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refiner is not None and not (
            isinstance(self.refiner, str) and self.refiner.strip()
        ):
            raise UsageError(f"refiner must name a folder, not {self.refiner!r}.")

    def check_model(self, backbone: Backbone, width: int) -> None:
        """Check that there is a refiner."""
        parts.find(self.refiner, backbone, width)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Refine the prompt, and let the clip's highest scores enter."""
        prompt = view.prompt
        if prompt is None:
            raise ValueError("EchoingPixels refines the whole prompt, and the view has none.")
        device = prompt.embeds.device
        network = parts.find(self.refiner, view.backbone, view.embeds.shape[1]).to(device)
        rows = network(prompt.embeds.float()[None], prompt.positions[:, None])[0]
        clip = rows.index_select(0, prompt.av)
        count = plan.counts[0]
        keep = torch.arange(plan.total)
        if count < plan.total:
            keep = top(network.score(clip), count).cpu()
            clip = clip.index_select(0, keep.to(device))
        return Entry(keep, states=clip, text=rows.index_select(0, prompt.text))
