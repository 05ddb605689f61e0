"""DyCoke: drop from every four frames what repeats an earlier one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import Entry, EntryView, Part, Plan
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.frames import Frames, likeness
from omnidrop.pruning.parts.select import even, shares, top_within
from omnidrop.tokens import TokenMap


@dataclass(frozen=True)
class DyCoke(EntryMethod):
    """Drops video tokens that repeat the same place of an earlier frame, before the LLM.

    Based on the token temporal merging of DyCoke (https://arxiv.org/abs/2411.15024) and its public
    code.

    Published: of four frames the first stays whole; the second and third keep the tokens least
    like (by cosine) the same place in the first, the fourth those least like the third, a share
    1 − p of each. Dropped tokens are dropped: those that stay carry their own embeddings. The other
    half of DyCoke, which moves video tokens in and out of the KV cache at every decoded token, is
    not part of this: it saves nothing of the prefill, which is what a budget counts.

    Ours: p is solved for the budget. DyCoke knows no audio; all of it stays while p alone can meet
    the budget, and below that audio and first frames are reduced by one common factor, audio
    evenly, and video by groups of twice as many frames until their first frames fit. In such a
    group every second frame is compared with the one before, the others with the first. Where most
    tokens are audio that leaves little video; see `audio`.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    prune : float, default 0.7
        p (paper: 0.7), where it is not solved for.
    group : int, default 4
        Frames per group (paper).
    audio : {"whole", "even"}, default "whole"
        Keep audio while video alone can meet the budget, or thin it evenly to the same share as
        video (both ours); only with `solve`.
    solve : bool, default True
        False: take `prune` as it stands; `budget` is then only a name, and the plan notes it where
        the realised mean differs (paper preset).
    """

    name: ClassVar[str] = "dycoke"

    prune: float = 0.7
    group: int = 4
    audio: Literal["whole", "even"] = "whole"
    solve: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("prune", self.prune, low=0, high=1)
        checks.whole("group", self.group, low=1)

    @classmethod
    def presets(cls) -> dict[str, DyCoke]:
        """Return the paper's rate as a preset; 0.475 is the share of video that it keeps."""
        return {"dycoke-p70": cls(budget=0.475, solve=False)}

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {"group": (2, 4, 8), "audio": ("whole", "even")}

    def parts(self) -> frozenset[Part]:
        """Return the entry, unless a given p fixes how many tokens enter."""
        return super().parts() if self.solve else frozenset()

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Keep one number of tokens throughout."""
        total = len(tokens)
        if self.solve or not total:
            return super().plan(tokens, layers)
        frames = Frames.of(tokens.select(tokens.video))
        first = int(frames.sizes[_leader(len(frames), self.group) < 0].sum())
        followers = len(frames.frame) - first
        count = total - followers + round((1 - self.prune) * followers)
        return schedules.fixed(
            schedules.Curve("step", entry_ratio=count / total), total, layers, self.budget
        )

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep audio, first frames, and what is new in the others."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        audio = view.tokens.audio.cpu().nonzero().flatten()
        video = view.tokens.video.cpu().nonzero().flatten()
        frames = Frames.of(view.tokens.select(video))
        first = int(frames.sizes[_leader(len(frames), self.group) < 0].sum())
        n_audio = len(audio)
        if self.solve and self.audio == "even":
            n_audio = round(count * n_audio / total)
        elif count < n_audio + first:
            n_audio = round(count * n_audio / (n_audio + first))
        if len(audio) and len(video) and count >= 2:
            n_audio = min(max(n_audio, 1), count - 1)
        kept_video = self._new(view.embeds, video, frames, count - n_audio)
        return Entry(torch.cat((audio[even(len(audio), n_audio)], video[kept_video])).sort().values)

    def _new(
        self, embeds: torch.Tensor, index: torch.Tensor, frames: Frames, count: int
    ) -> torch.Tensor:
        """Choose `count` video tokens; indices into the video tokens."""
        if count >= len(index) or not count:
            return torch.arange(count)
        size, leader = self.group, _leader(len(frames), self.group)
        while size < len(frames) and int(frames.sizes[leader < 0].sum()) > count:
            size *= 2
            leader = _leader(len(frames), size)
        follows = (leader >= 0)[frames.frame]
        first = (~follows).nonzero().flatten()
        if len(first) >= count:
            return first[even(len(first), count)]
        followers = follows.nonzero().flatten()
        alike = likeness(embeds, index, frames.twins(leader))[followers]
        quota = torch.zeros_like(frames.sizes)
        quota[leader >= 0] = shares(frames.sizes[leader >= 0], count - len(first))
        new = top_within(-alike, frames.frame[followers], quota)
        return torch.cat((first, followers[new]))


def _leader(frames: int, size: int) -> torch.Tensor:
    """Return the frame that each is compared with, (frames,) int64; -1 for the first of a group."""
    number = torch.arange(frames)
    offset = number % size
    return torch.where(offset == 0, -1, torch.where(offset % 2 == 1, number - 1, number - offset))
