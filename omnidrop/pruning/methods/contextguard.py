"""ContextGuard: drop the video that the audio predicts, and keep the rest.

All of it happens before the LLM and without the question. A small predictor tells from a chunk's
audio what its video embeddings probably are; video tokens near the prediction are dropped. Local
detail, which no audio predicts, is kept on purpose, and video that repeats itself is merged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from omnidrop.errors import UsageError
from omnidrop.pruning import checks
from omnidrop.pruning.method import Backbone, Entry, EntryView, Plan
from omnidrop.pruning.parts import a2v
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.farthest_point import Windows, spread_out
from omnidrop.pruning.parts.frames import Frames, likeness, likeness_to_mean
from omnidrop.pruning.parts.merging import mixed, takes_in
from omnidrop.pruning.parts.select import even, shares, top

#: Video tokens compared at once: bounds the float32 copies.
_BLOCK = 512


@dataclass(frozen=True)
class ContextGuard(EntryMethod):
    """Drops video that the audio predicts, keeps local detail, merges what repeats itself.

    Based on ContextGuard (https://arxiv.org/abs/2605.11605).

    Published: an audio-to-visual predictor, trained apart from the model, and what it predicts is
    dropped; extra tokens for local detail; merging inside segments cut by depth score; all before
    the LLM.

    Ours: every number, which the paper does not give, and the order of the three. Of the video
    tokens to drop, up to `merge` are merged: those most like the same place of the first frame of
    their segment. Of the others, `detail` of what may stay is chosen by farthest-point selection
    inside each frame, on `(1 − cosine) · (1 − cosine to the frame's mean)`, and the rest are those
    least like the mean video embedding predicted from the chunk's audio. In a chunk without audio
    nothing is predicted, and detail alone chooses.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    predictor : str, optional
        Folder of a predictor made by `omnidrop train-a2v`; None takes the one in the model's own
        folder (the demo model has one).
    audio : float, default 2.75
        How many times the share of video kept is the share of audio kept, until audio is whole.
    detail : float, default 0.5
        Share of the video kept that is kept for local detail.
    merge : float, default 0.5
        Highest share of the video dropped that is merged.
    alike : float, default 0.9
        Lowest cosine at which a token may be merged.
    cut : float, default -0.5
        A segment ends at a valley of adjacent frames' similarity whose depth is over the mean depth
        by this many standard deviations (TextTiling's liberal cutoff).
    """

    name: ClassVar[str] = "contextguard"
    files: ClassVar[frozenset[str]] = frozenset({"predictor"})

    predictor: str | None = None
    audio: float = 2.75
    detail: float = 0.5
    merge: float = 0.5
    alike: float = 0.9
    cut: float = -0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictor is not None and not (
            isinstance(self.predictor, str) and self.predictor.strip()
        ):
            raise UsageError(f"predictor must name a folder, not {self.predictor!r}.")
        checks.number("audio", self.audio, low=1e-6)
        checks.number("detail", self.detail, low=0, high=1)
        checks.number("merge", self.merge, low=0, high=1)
        checks.number("alike", self.alike, low=-1, high=1)
        checks.number("cut", self.cut)

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {
            "audio": (1.0, 2.75, 6.0),
            "detail": (0.2, 0.5, 0.8, 1.0),
            "merge": (0.0, 0.5, 1.0),
        }

    def check_model(self, backbone: Backbone, width: int) -> None:
        """Check that there is a predictor."""
        a2v.find(self.predictor, backbone, width)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Choose audio by encoder attention, and video by merging, detail and explanation."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        audio = view.tokens.audio.cpu().nonzero().flatten()
        video = view.tokens.video.cpu().nonzero().flatten()
        n_audio = self._audio_quota(len(audio), len(video), count)
        if view.audio_attention is None:  # an encoder that reports none: spread evenly over time
            kept_audio = even(len(audio), n_audio)
        else:
            kept_audio = top(view.audio_attention, n_audio).cpu()
        kept, target, source = self._see(view, video, count - n_audio)
        keep = torch.cat((audio[kept_audio], video[kept])).sort().values
        return mixed(keep, video[target], video[source])

    def _audio_quota(self, audio: int, video: int, count: int) -> int:
        """Return how many of the `count` are audio; one of each at least if two may enter."""
        if not audio or not video:
            return count if audio else 0
        quota = round(count * self.audio * audio / (self.audio * audio + video))
        least, most = max(count - video, 0), min(count, audio)
        if count >= 2:
            least, most = max(least, 1), min(most, count - 1)
        return min(max(quota, least), most)

    def _see(
        self, view: EntryView, video: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Choose `count` video tokens; return them, and which of them take in which tokens."""
        nothing = torch.empty(0, dtype=torch.int64)
        if count >= len(video) or not count:
            kept = torch.arange(len(video)) if count else nothing
            return kept, nothing, nothing
        video_tokens = view.tokens.select(video)
        frames = Frames.of(video_tokens)
        anchor = self._anchors(view.embeds, video, frames, len(video) - count)
        own = torch.arange(len(video))
        kept = torch.zeros(len(video), dtype=torch.bool)
        left = (anchor == own).nonzero().flatten()
        detail = _detail(view.embeds, video, frames)
        kept[left[self._choose(view, video[left], frames.frame[left], detail, count)]] = True
        return kept.nonzero().flatten(), *takes_in(anchor, kept)

    def _anchors(
        self, embeds: torch.Tensor, video: torch.Tensor, frames: Frames, drop: int
    ) -> torch.Tensor:
        """Return the token that each token merges into; itself where it does not."""
        own = torch.arange(len(video))
        if len(frames) < 2 or not self.merge:
            return own
        before = likeness(embeds, video, frames.twins(torch.arange(len(frames)) - 1))
        compared = (before >= -1).double()
        sums = torch.zeros(len(frames), dtype=torch.float64)
        counts = sums.index_add(0, frames.frame, compared)
        sums = sums.index_add(0, frames.frame, before.double() * compared)
        similar = (sums / counts.clamp_min(1))[1:]
        starts = torch.tensor([0, *(gap + 1 for gap in valleys(similar.tolist(), self.cut))])
        first = starts[torch.searchsorted(starts, torch.arange(len(frames)), right=True) - 1]
        twins = frames.twins(first)
        twins = torch.where(twins == own, -1, twins)
        like = likeness(embeds, video, twins)
        order = torch.sort(like, descending=True, stable=True).indices
        able = order[(like[order] >= self.alike) & (twins[order] >= 0)]
        go = able[: math.floor(self.merge * drop)]
        own[go] = twins[go]
        return own

    def _choose(
        self,
        view: EntryView,
        rows: torch.Tensor,
        frame: torch.Tensor,
        detail: torch.Tensor,
        count: int,
    ) -> torch.Tensor:
        """Choose `count` of the video tokens at `rows` by detail and explanation."""
        number = pictures = None
        if bool(view.tokens.audio.any()):
            network = a2v.find(self.predictor, view.backbone, view.embeds.shape[1])
            number, pictures = a2v.predict(network, view.tokens, view.embeds)
        chunk = view.tokens.chunk[rows].long().cpu()
        predicted = torch.zeros(len(rows), dtype=torch.bool)
        if number is not None:
            predicted = torch.isin(chunk, number)
        quota = shares(
            torch.tensor([int(predicted.sum()), int((~predicted).sum())]), count
        ).tolist()
        chosen = torch.zeros(len(rows), dtype=torch.bool)
        for group, share in ((predicted, round(self.detail * quota[0])), (~predicted, quota[1])):
            if share:
                own = group.nonzero().flatten()
                windows = Windows.of(frame[own], rows[own])
                best = spread_out(view.embeds, detail, windows, shares(windows.sizes, share))
                chosen[torch.searchsorted(rows, best)] = True
        rest = (predicted & ~chosen).nonzero().flatten()
        if len(rest) and number is not None and pictures is not None:
            place = torch.searchsorted(number, chunk[rest])
            known = _explained(view.embeds, rows[rest], pictures, place)
            order = torch.sort(known, stable=True).indices
            chosen[rest[order[: count - int(chosen.sum())]]] = True
        return chosen.nonzero().flatten()


def valleys(similar: list[float], cut: float) -> list[int]:
    """Return the gaps at which a segment ends, by depth score (TextTiling).

    The depth of a gap is how far the similarity climbs from it to the nearest peak on its left, and
    to that on its right, added up. A segment ends at a valley, a gap no more similar than its
    neighbours, whose depth is over 0 and over the mean depth + `cut` · standard deviation.

    Parameters
    ----------
    similar : list of float
        Similarity of frames i and i + 1.
    cut : float
    """
    depths = []
    for i, here in enumerate(similar):
        peaks = []
        for way in (-1, 1):
            j = i
            while 0 <= j + way < len(similar) and similar[j + way] >= similar[j]:
                j += way
            peaks.append(similar[j])
        depths.append(sum(peaks) - 2 * here)
    if not depths:
        return []
    mean = sum(depths) / len(depths)
    spread = math.sqrt(sum((d - mean) ** 2 for d in depths) / len(depths))
    found = []
    for i, depth in enumerate(depths):
        low = all(similar[i] <= s for s in similar[max(i - 1, 0) : i + 2])
        if low and depth > max(mean + cut * spread, 0.0):
            found.append(i)
    return found


def _detail(embeds: torch.Tensor, video: torch.Tensor, frames: Frames) -> torch.Tensor:
    """Return 1 − cosine of each video token to the mean of its frame, (N,); 0 for audio."""
    out = torch.zeros(len(embeds), device=embeds.device)
    apart = 1 - likeness_to_mean(embeds, video, frames)
    out[video.to(embeds.device)] = apart.clamp_min(0)
    return out


def _explained(
    embeds: torch.Tensor, rows: torch.Tensor, pictures: torch.Tensor, place: torch.Tensor
) -> torch.Tensor:
    """Return the cosine of each token to its chunk's predicted embedding, on the CPU."""
    return _cosine(embeds, rows, pictures, place).cpu()


def _cosine(
    embeds: torch.Tensor, rows: torch.Tensor, others: torch.Tensor, place: torch.Tensor
) -> torch.Tensor:
    """Return the cosine of rows of `embeds` to rows of `others`."""
    device = embeds.device
    parts = [
        torch.cosine_similarity(embeds[a.to(device)].float(), others[b.to(device)].float(), dim=-1)
        for a, b in zip(rows.split(_BLOCK), place.split(_BLOCK), strict=True)
    ]
    return torch.cat(parts)
