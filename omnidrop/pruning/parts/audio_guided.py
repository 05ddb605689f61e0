"""Entry reduction guided by audio: what OmniZip and DASH have in common.

Audio is chosen by score, and some of what is left is merged into evenly spaced anchors. The clip is
cut into windows; how much of a window's audio stays sets how much of its video does. Inside a
window frames come in pairs: the even frame keeps tokens by their spread over the frame, the odd
frame those least like the same place in the frame before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch.nn.functional import normalize

from omnidrop.pruning import checks, schedules
from omnidrop.pruning.method import Entry, EntryView, Part, Plan
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.frames import Frames, likeness
from omnidrop.pruning.parts.merging import mixed
from omnidrop.pruning.parts.select import even, rank_within, top, top_within
from omnidrop.tokens import TokenMap

#: Video tokens, and pairs of tokens, compared at once.
_BLOCK = 1024
_PAIRS = 2**24

#: Points (share of audio kept, share of video kept), both rising, from (0, 0) to (1, 1).
Path = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Guided(EntryMethod):
    """Base of the audio-guided methods; a subclass says what scores, windows and rates are.

    Parameters
    ----------
    contextual : float, default 0.05
        Anchors, as a share of all audio tokens; at most half of the audio tokens kept (ours).
    group : int, default 3
        Tokens merged into one anchor, at most.
    solve : bool, default True
        Scale audio and video until they meet the budget (ours). False: take `rho_a` and `rho_v` as
        they stand; `budget` is then only a name, and the plan notes it where the realised mean
        differs (paper presets).
    """

    contextual: float = 0.05
    group: int = 3
    solve: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("contextual", self.contextual, low=0, high=1)
        checks.whole("group", self.group, low=0)

    def rates(self) -> tuple[float, float] | None:
        """Return the pruning rates of audio and video, if they are given."""
        raise NotImplementedError

    def path(self) -> Path:
        """Return how audio and video share a budget."""
        raise NotImplementedError

    def scores(self, view: EntryView, audio: torch.Tensor) -> torch.Tensor | None:
        """Return the score of each audio token, (Na,), or None to space them evenly."""
        raise NotImplementedError

    def windows(
        self, view: EntryView, audio: torch.Tensor, frames: Frames
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the window of each audio token, (Na,), and of each frame, (f,), from 0 on."""
        raise NotImplementedError

    def window_rates(
        self, kept: torch.Tensor, sizes: torch.Tensor, guided: torch.Tensor, target: float
    ) -> torch.Tensor:
        """Return the video pruning rate of each window, (w,) float64.

        Parameters
        ----------
        kept : Tensor, (w,) float64
            Share of the window's audio that stays.
        sizes : Tensor, (w,) int64
            Its video tokens.
        guided : Tensor, (w,) bool
            Whether it has audio.
        target : float
            Rate over the whole clip.
        """
        raise NotImplementedError

    def spatial(self, units: torch.Tensor) -> torch.Tensor:
        """Return the scores of the tokens of even frames, (b, n, D) unit vectors → (b, n)."""
        raise NotImplementedError

    def parts(self) -> frozenset[Part]:
        """Return the entry, unless given rates fix how many tokens enter."""
        return super().parts() if self.solve else frozenset()

    def plan(self, tokens: TokenMap, layers: int) -> Plan:
        """Keep one number of tokens throughout."""
        total = len(tokens)
        if self.solve or not total:
            plan = super().plan(tokens, layers)
        else:
            count = max(sum(self._parts(tokens, 0)), 1)
            curve = schedules.Curve("step", entry_ratio=count / total)
            plan = schedules.fixed(curve, total, layers, self.budget)
        if not total:
            return plan
        n_audio, n_video = self._parts(tokens, plan.counts[0])
        return replace(
            plan, settings={**plan.settings, "audio_kept": n_audio, "video_kept": n_video}
        )

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep and merge audio, then let it decide where video stays."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        audio = view.tokens.audio.cpu().nonzero().flatten()
        video = view.tokens.video.cpu().nonzero().flatten()
        n_audio = self._parts(view.tokens, count)[0]

        few = self._anchors(len(audio), n_audio)
        scores = self.scores(view, audio)
        dominant = even(len(audio), n_audio - few) if scores is None else top(scores, n_audio - few)
        stays = torch.zeros(len(audio), dtype=torch.bool)
        stays[dominant] = True
        anchors, *mix = merge_audio(view.embeds, audio, video, stays, few, self.group)
        stays[anchors] = True

        frames = Frames.of(view.tokens.select(video))
        kept_video = self._look(view, audio, stays, video, frames, count - n_audio)
        keep = torch.cat((audio[stays], video[kept_video])).sort().values
        return mixed(keep, *mix)

    def _parts(self, tokens: TokenMap, count: int) -> tuple[int, int]:
        """Return how many audio and how many video tokens enter."""
        audio, video = int(tokens.audio.sum()), int(tokens.video.sum())
        given = self.rates()
        if not self.solve and given is not None:
            dominant = round((1 - given[0]) * audio)
            n_audio = min(dominant + round(self.contextual * audio), audio)
            return n_audio, round((1 - given[1]) * video)
        n_audio = audio_quota(audio, video, count, self.path())
        return n_audio, count - n_audio

    def _anchors(self, audio: int, n_audio: int) -> int:
        """Return how many of the kept audio tokens are anchors."""
        return min(round(self.contextual * audio), n_audio // 2)

    def _look(
        self,
        view: EntryView,
        audio: torch.Tensor,
        stays: torch.Tensor,
        video: torch.Tensor,
        frames: Frames,
        count: int,
    ) -> torch.Tensor:
        """Choose `count` video tokens; indices into the video tokens."""
        if count in (0, len(video)):
            return torch.arange(count)
        audio_window, frame_window = self.windows(view, audio, frames)
        number = int(torch.cat((audio_window, frame_window)).max()) + 1
        whole = torch.bincount(audio_window, minlength=number)
        kept = torch.bincount(audio_window[stays], minlength=number)
        sizes = torch.zeros(number, dtype=torch.int64).index_add_(0, frame_window, frames.sizes)
        rates = self.window_rates(
            kept.double() / whole.clamp_min(1), sizes, whole > 0, 1 - count / len(video)
        )
        quota = apportion(1 - rates[frame_window], frames.sizes, count)
        score = paired(view.embeds, video, frames, frame_window, self.spatial)[0]
        return top_within(score, frames.frame, quota)


def audio_quota(audio: int, video: int, count: int, path: Path) -> int:
    """Return how many of `count` tokens are audio, where the path meets the count.

    Each modality that exists gets at least one token if there are two.
    """
    if not audio or not video:
        return count if audio else 0
    quota = float(audio)
    for (a, v), (a_next, v_next) in pairwise(path):
        low, high = a * audio + v * video, a_next * audio + v_next * video
        if count <= high:
            share = (count - low) / (high - low) if high > low else 0.0
            quota = audio * (a + share * (a_next - a))
            break
    least, most = max(count - video, 0), min(count, audio)
    if count >= 2:
        least, most = max(least, 1), min(most, count - 1)
    return min(max(round(quota), least), most)


def paired(
    embeds: torch.Tensor,
    video: torch.Tensor,
    frames: Frames,
    window: torch.Tensor,
    spatial: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score video tokens by frames in pairs, counted inside each window.

    Parameters
    ----------
    embeds : Tensor, (N, D)
    video : Tensor, (n,) int64
        Rows of `embeds` that are video.
    frames : Frames
    window : Tensor, (f,) int64
        Window of each frame, never falling.
    spatial : callable
        Scores the tokens of even frames, (b, n, D) unit vectors → (b, n).

    Returns
    -------
    Tensor, (n,) float32
        That score in even frames; in odd ones minus the cosine to the same place of the frame
        before. On the CPU.
    Tensor, (f,) bool
        Which frames are odd.
    """
    odd = rank_within(window, torch.bincount(window)) % 2 == 1
    earlier = torch.where(odd, torch.arange(len(frames)) - 1, -1)
    score = -likeness(embeds, video, frames.twins(earlier))
    for rows in _batches(frames, ~odd):
        units = normalize(embeds[video[rows].to(embeds.device)].float(), dim=-1)
        score[rows] = spatial(units).cpu()
    return score, odd


def apportion(kept: torch.Tensor, sizes: torch.Tensor, count: int) -> torch.Tensor:
    """Turn shares of frames into whole numbers that sum to `count`.

    Shares that keep too much are scaled down by one factor; where they keep too little, it is what
    they drop that is scaled down. Then cumulative rounding.

    Parameters
    ----------
    kept : Tensor, (f,) float64
        In [0, 1].
    sizes : Tensor, (f,) int64
    count : int
        0..sum of sizes.
    """
    wanted = kept * sizes
    total, size = float(wanted.sum()), int(sizes.sum())
    if count <= total:
        wanted = wanted * (count / total if total else 0.0)
    else:
        wanted = sizes - (sizes - wanted) * ((size - count) / (size - total))
    # In millionths, so that a sum a rounding error away from a half does not decide.
    edges = ((wanted.cumsum(0) * 1e6).round().long() + 500_000) // 1_000_000
    edges[-1] = count
    return edges.diff(prepend=edges.new_zeros(1))


def merge_audio(
    embeds: torch.Tensor,
    audio: torch.Tensor,
    video: torch.Tensor,
    stays: torch.Tensor,
    count: int,
    group: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Choose anchors among the dropped audio, and merge audio that is most like video into them.

    Anchors are evenly spaced; each of the others belongs to the anchor most like it (cosine). The
    `group` members of an anchor most like any video token are averaged, weighted by the softmax of
    that likeness, and the anchor becomes the mean of itself and that average.

    Parameters
    ----------
    embeds : Tensor, (N, D)
    audio, video : Tensor, int64
        Rows of `embeds`.
    stays : Tensor, (Na,) bool
        Audio that is kept as it is.
    count : int
        How many anchors.
    group : int

    Returns
    -------
    anchors : Tensor, (count,) int64
        Indices into `audio`, ascending.
    target, source : Tensor, (m,) int64
        Rows of `embeds`: which anchor takes in which audio token; itself last.
    weight : Tensor, (m,) float32
    """
    left = (~stays).nonzero().flatten()
    step = max(len(left) // max(count, 1), 1)
    anchors = left[torch.arange(count) * step]
    member = ~stays
    member[anchors] = False
    pool = member.nonzero().flatten()
    if not len(anchors) or not len(pool) or not group:
        return anchors, anchors[:0], anchors[:0], torch.empty(0)
    there = embeds.device
    own = normalize(embeds[audio[pool].to(there)].float(), dim=-1)
    centres = embeds[audio[anchors].to(there)].float()
    best, place = (own @ normalize(centres, dim=-1).T).max(1)
    if len(video):
        best = torch.full_like(best, -torch.inf)
        for rows in video.split(_BLOCK):
            video_units = normalize(embeds[rows.to(there)].float(), dim=-1)
            best = torch.maximum(best, (own @ video_units.T).amax(1))
    chosen = top_within(best.cpu(), place.cpu(), torch.full((count,), group)).to(there)
    into = place[chosen]
    weight = best[chosen].exp()
    weight = weight / torch.zeros_like(centres[:, 0]).index_add_(0, into, weight)[into]
    used = torch.unique(into).cpu()
    own = audio[anchors]
    return (
        anchors,
        torch.cat((own[into.cpu()], own[used])),
        torch.cat((audio[pool[chosen.cpu()]], own[used])),
        torch.cat((weight.cpu(), torch.ones(len(used)))),
    )


def _batches(frames: Frames, which: torch.Tensor) -> list[torch.Tensor]:
    """Return the tokens of the frames in the mask `which`, (b, n) per batch of one frame size."""
    order = torch.sort(frames.frame, stable=True).indices
    starts = frames.sizes.cumsum(0) - frames.sizes
    found: list[torch.Tensor] = []
    for size in torch.unique(frames.sizes[which]).tolist():
        first = starts[which & (frames.sizes == size)]
        rows = order[first[:, None] + torch.arange(size)]
        found += rows.split(max(_PAIRS // size**2, 1))
    return found
