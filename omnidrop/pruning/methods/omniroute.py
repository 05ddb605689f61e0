"""OmniRoute: in each chunk the modality nearer to the question leads, and the other follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from omnidrop.pruning import checks
from omnidrop.pruning.method import Entry, EntryView, Need, Plan
from omnidrop.pruning.methods.omnizip import density_peaks
from omnidrop.pruning.parts.audio_guided import apportion, merge_audio, paired
from omnidrop.pruning.parts.change import mean_change, means, neighbours, scaled, steps
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.frames import Frames
from omnidrop.pruning.parts.merging import mixed
from omnidrop.pruning.parts.select import rank_within, top_within


@dataclass(frozen=True)
class OmniRoute(EntryMethod):
    """Prunes less where a chunk changes, by the modality that is nearer to the question.

    Based on OmniRoute (October 2026, no code), of which only a summary without an address was at
    hand. What it shares with OmniZip (https://arxiv.org/abs/2511.14582) is computed as there.

    Published:

    - Who leads: per chunk, D = cosine of the question's mean embedding to the audio − its cosine to
      the video; audio leads with weight sigmoid((D − τ) / 0.03), video with the rest.
    - Change: g = 0.7 · change inside the chunk + 0.3 · change between chunks sets the video rate.
    - The follower's rate is base + 0.5 · (the leader's actual rate − base).
    - Constants η_s 0.82, η_t 0.58, γ_v 0.21, γ_a 0.09, and anchors for 5 % of the audio.

    Ours:

    - τ is 0. Audio and video of a chunk are the means of their embeddings.
    - Audio that leads goes by a g of its own. The follower's rate is its own base rate + 0.5 · (the
      leader's actual rate − the leader's base rate); the actual rate is that of whole tokens. Where
      neither leads alone, rates are mixed by the weight.
    - Change inside a chunk is the mean of 1 − cosine of video tokens to the same place of the frame
      before, of audio tokens to the one before; between chunks it is 1 − cosine of the means of
      this chunk and the one before (the first takes the second's). g is scaled to [0, 1] over the
      clip, audio and video apart.
    - η_s and η_t are read as the rates of the even frames of a chunk, which keep density peaks, and
      of the odd ones, which keep what differs from the frame before (both as in OmniZip); γ · g is
      what change takes off. With OmniZip's audio rate of 0.3 and a mean g of ½ these constants
      then keep 45 % where one token in seven is audio, the highest of the published tiers, which is
      why they are read so. The base rates are those at g = ½.
    - Audio inside a chunk is kept by its encoder's attention, and anchors take in three tokens
      each, as in OmniZip.
    - At any other budget one factor scales what is kept (below the rates' own total) or what is
      dropped (above it), so that how much is audio depends on question and clip.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    tau : float, default 0
        D at which neither modality leads (ours).
    heat : float, default 0.03
        How much D has to differ from `tau` for one to lead (published).
    inside : float, default 0.7
        Weight of change inside the chunk; the rest is that of change between chunks (published).
    follow : float, default 0.5
        How far the follower goes along with the leader (published).
    eta_s, eta_t : float, default 0.82 and 0.58
        Pruning rates of even and of odd frames that do not change (published constants, our
        reading).
    gamma_v, gamma_a : float, default 0.21 and 0.09
        What change takes off the rate of video and of audio (published constants, our reading).
    rho_a : float, default 0.3
        Base rate of audio (OmniZip's at 45 %).
    contextual : float, default 0.05
        Anchors, as a share of all audio tokens (published); at most half of the audio kept (ours).
    group : int, default 3
        Tokens merged into one anchor, at most (OmniZip's).
    """

    name: ClassVar[str] = "omniroute"
    wants: ClassVar[frozenset[str]] = frozenset({Need.QUESTION})
    question_free: ClassVar[bool] = False

    tau: float = 0.0
    heat: float = 0.03
    inside: float = 0.7
    follow: float = 0.5
    eta_s: float = 0.82
    eta_t: float = 0.58
    gamma_v: float = 0.21
    gamma_a: float = 0.09
    rho_a: float = 0.3
    contextual: float = 0.05
    group: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("tau", self.tau, low=-2, high=2)
        checks.number("heat", self.heat, low=1e-4)
        for field in ("inside", "follow", "eta_s", "eta_t", "gamma_v", "gamma_a", "rho_a"):
            checks.number(field, getattr(self, field), low=0, high=1)
        checks.number("contextual", self.contextual, low=0, high=1)
        checks.whole("group", self.group, low=0)

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {
            "tau": (-0.1, -0.03, 0.0, 0.03, 0.1),
            "rho_a": (0.1, 0.3, 0.5, 0.7),
            "gamma_v": (0.1, 0.21, 0.4),
            "gamma_a": (0.05, 0.09, 0.2),
        }

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Let the leading modality of each chunk say how much of it stays."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        clip = _Chunks.of(view)
        audio_rate, even_rate, odd_rate = self.rates(
            self.lead(view, clip),
            self._change(view, clip, heard=True),
            self._change(view, clip, heard=False),
            clip.audio_sizes,
            clip.video_sizes,
        )
        score, odd = clip.scored(view)
        frame_rate = torch.where(odd, odd_rate[clip.frame_chunk], even_rate[clip.frame_chunk])
        n_audio = _audio_count(
            (1 - audio_rate) * clip.audio_sizes, (1 - frame_rate) * clip.frames.sizes, clip, count
        )
        stays, mix = self._heard(view, clip, 1 - audio_rate, n_audio)
        seen = torch.empty(0, dtype=torch.int64)
        if count > n_audio:
            quota = apportion(1 - frame_rate, clip.frames.sizes, count - n_audio)
            seen = top_within(score, clip.frames.frame, quota)
        keep = torch.cat((clip.audio[stays], clip.video[seen])).sort().values
        return mixed(keep, *mix) if mix else Entry(keep)

    def lead(self, view: EntryView, clip: _Chunks) -> torch.Tensor:
        """Return the weight with which audio leads in each chunk, (c,) float64.

        1 without video, 0 without audio.
        """
        assert view.question_embeds is not None, "the engine gives what is named in wants"
        asked = view.question_embeds.float().mean(0)
        near = [
            torch.cosine_similarity(centres, asked, dim=-1).double().cpu()
            for centres in (clip.centres(view, heard=True), clip.centres(view, heard=False))
        ]
        weight = torch.sigmoid((near[0] - near[1] - self.tau) / self.heat)
        weight = torch.where(clip.video_sizes > 0, weight, 1.0)
        return torch.where(clip.audio_sizes > 0, weight, 0.0)

    def rates(
        self,
        lead: torch.Tensor,
        audio_change: torch.Tensor,
        video_change: torch.Tensor,
        audio_sizes: torch.Tensor,
        video_sizes: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the pruning rates of each chunk's audio, even frames and odd frames.

        Parameters
        ----------
        lead : Tensor, (c,) float64
            Weight with which audio leads.
        audio_change, video_change : Tensor, (c,) float64
            g, in [0, 1].
        audio_sizes, video_sizes : Tensor, (c,) int64
            Tokens of the chunk.

        Returns
        -------
        tuple of Tensor, (c,) float64
            In [0, 1].
        """
        own_audio = self.gamma_a * (0.5 - audio_change)
        own_video = self.gamma_v * (0.5 - video_change)
        base = (self.eta_s + self.eta_t - self.gamma_v) / 2
        after_audio = self.follow * (_actual(self.rho_a + own_audio, audio_sizes) - self.rho_a)
        after_video = self.follow * (_actual(base + own_video, video_sizes) - base)
        audio = self.rho_a + lead * own_audio + (1 - lead) * after_video
        video = lead * after_audio + (1 - lead) * own_video - self.gamma_v / 2
        return audio.clamp(0, 1), (self.eta_s + video).clamp(0, 1), (self.eta_t + video).clamp(0, 1)

    def _change(self, view: EntryView, clip: _Chunks, *, heard: bool) -> torch.Tensor:
        """Return how much one modality changes in each chunk, (c,) float64 in [0, 1]."""
        inside = clip.inside(view, heard=heard)
        there = (clip.audio_sizes if heard else clip.video_sizes) > 0
        between = torch.zeros_like(inside)
        between[there] = steps(clip.centres(view, heard=heard)[there.to(view.embeds.device)])
        change = self.inside * inside + (1 - self.inside) * between
        change[there] = scaled(change[there])
        return change

    def _heard(
        self, view: EntryView, clip: _Chunks, kept: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Choose `count` audio tokens; return a mask of them, and what anchors take in."""
        stays = torch.zeros(len(clip.audio), dtype=torch.bool)
        if not count:
            return stays, ()
        few = min(round(self.contextual * len(stays)), count // 2)
        quota = apportion(kept, clip.audio_sizes, count - few)
        if view.audio_attention is None:
            stays |= _spaced(clip.audio_chunk, clip.audio_sizes, quota)
        else:
            stays[top_within(view.audio_attention.float().cpu(), clip.audio_chunk, quota)] = True
        anchors, *mix = merge_audio(view.embeds, clip.audio, clip.video, stays, few, self.group)
        stays[anchors] = True
        return stays, tuple(mix)


@dataclass(frozen=True)
class _Chunks:
    """The audio and video of a clip by chunk; everything is on the CPU.

    Attributes
    ----------
    audio, video : Tensor, int64
        Indices of the tokens.
    frames : Frames
    audio_chunk, frame_chunk : Tensor, int64
        Chunk of each audio token and of each frame, counted 0, 1, 2, … over those that occur.
    audio_sizes, video_sizes : Tensor, (c,) int64
        Tokens per chunk.
    """

    audio: torch.Tensor
    video: torch.Tensor
    frames: Frames
    audio_chunk: torch.Tensor
    frame_chunk: torch.Tensor
    audio_sizes: torch.Tensor
    video_sizes: torch.Tensor

    @classmethod
    def of(cls, view: EntryView) -> _Chunks:
        """Sort the tokens of a clip."""
        chunk, place = torch.unique(view.tokens.chunk.cpu().long(), return_inverse=True)
        audio = view.tokens.audio.cpu().nonzero().flatten()
        video = view.tokens.video.cpu().nonzero().flatten()
        frames = Frames.of(view.tokens.select(video))
        return cls(
            audio,
            video,
            frames,
            place[audio],
            torch.searchsorted(chunk, frames.chunk),
            torch.bincount(place[audio], minlength=len(chunk)),
            torch.bincount(place[video], minlength=len(chunk)),
        )

    def runs(self, *, heard: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return indices and chunks of the tokens of one modality."""
        if heard:
            return self.audio, self.audio_chunk
        return self.video, self.frame_chunk[self.frames.frame]

    def centres(self, view: EntryView, *, heard: bool) -> torch.Tensor:
        """Return the mean embedding of each chunk's audio or video, (c, D)."""
        index, run = self.runs(heard=heard)
        return means(view.embeds, index, run, len(self.audio_sizes))

    def inside(self, view: EntryView, *, heard: bool) -> torch.Tensor:
        """Return how much one modality changes inside each chunk, (c,) float64."""
        index, run = self.runs(heard=heard)
        twins = neighbours(run) if heard else self.frames.twins(neighbours(self.frame_chunk))
        return mean_change(view.embeds, index, twins, run, len(self.audio_sizes))[0]

    def scored(self, view: EntryView) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the score of each video token, and which frames are odd in their chunk."""
        return paired(
            view.embeds,
            self.video,
            self.frames,
            self.frame_chunk,
            lambda units: density_peaks(units, _NEIGHBOURS),
        )


#: As in OmniZip.
_NEIGHBOURS = 5


def _actual(rate: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Return the rate at which whole tokens are dropped."""
    return (rate.clamp(0, 1) * sizes).round() / sizes.clamp_min(1)


def _audio_count(heard: torch.Tensor, seen: torch.Tensor, clip: _Chunks, count: int) -> int:
    """Return how many of `count` tokens are audio: at least one of each modality, if two are."""
    n_audio, n_video = len(clip.audio), len(clip.video)
    if not n_audio or not n_video:
        return count if n_audio else 0
    shares = torch.stack((heard.sum() / n_audio, seen.sum() / n_video))
    quota = int(apportion(shares, torch.tensor([n_audio, n_video]), count)[0])
    least, most = max(count - n_video, 0), min(count, n_audio)
    if count >= 2:
        least, most = max(least, 1), min(most, count - 1)
    return min(max(quota, least), most)


def _spaced(run: torch.Tensor, sizes: torch.Tensor, quota: torch.Tensor) -> torch.Tensor:
    """Return a mask of evenly spaced tokens, `quota` of each run."""
    rank, own, size = rank_within(run, sizes), quota[run], sizes[run]
    return (rank + 1) * own // size > rank * own // size
