"""EVS: keep the video tokens that differ most from the same place of the frame before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from omnidrop.pruning.method import Entry, EntryView, Plan
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.frames import Frames, likeness
from omnidrop.pruning.parts.select import even, top


@dataclass(frozen=True)
class Evs(EntryMethod):
    """Keeps the first frame and what changes from frame to frame, before the LLM.

    Based on Efficient Video Sampling (https://arxiv.org/abs/2510.14624), as serving engines ship it
    (https://github.com/vllm-project/vllm, `vllm/multimodal/evs.py`).

    Published: a token's score is 1 − cosine to the same place of the frame before, a frame being a
    temporal grid after the encoder (in the engines; the paper takes the L1 distance of the
    pixels); the first frame's tokens come before all others; of the whole clip the highest scores
    stay, at least one frame's number of tokens; positions stay as they were.

    Ours: the share is solved for the budget. EVS knows no audio; all of it stays while video alone
    can meet the budget, and below that audio and the first frame are reduced by one common factor,
    evenly. Where most tokens are audio that leaves little video; see `audio`.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    audio : {"whole", "even"}, default "whole"
        Keep audio while video alone can meet the budget, or thin it evenly to the same share as
        video (both ours).
    """

    name: ClassVar[str] = "evs"

    audio: Literal["whole", "even"] = "whole"

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {"audio": ("whole", "even")}

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep audio, the first frame, and what changes most."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        audio = view.tokens.audio.cpu().nonzero().flatten()
        video = view.tokens.video.cpu().nonzero().flatten()
        frames = Frames.of(view.tokens.select(video))
        first = int(frames.sizes[:1].sum())
        n_audio = len(audio)
        if self.audio == "even":
            n_audio = round(count * n_audio / total)
        elif count < n_audio + first:
            n_audio = round(count * n_audio / (n_audio + first))
        if len(audio) and len(video) and count >= 2:
            n_audio = min(max(n_audio, 1), count - 1)
        n_audio = max(n_audio, count - len(video))
        kept = self._changed(view.embeds, video, frames, count - n_audio)
        return Entry(torch.cat((audio[even(len(audio), n_audio)], video[kept])).sort().values)

    def _changed(
        self, embeds: torch.Tensor, index: torch.Tensor, frames: Frames, count: int
    ) -> torch.Tensor:
        """Choose `count` video tokens; indices into the video tokens."""
        first = (frames.frame == 0).nonzero().flatten()
        if count <= len(first):
            return first[even(len(first), count)]
        before = torch.arange(len(frames)) - 1
        return top(1 - likeness(embeds, index, frames.twins(before)), count)
