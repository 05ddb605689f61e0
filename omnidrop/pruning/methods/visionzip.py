"""VisionZip: keep what the encoder attends to, and merge the rest into a few tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import normalize

from omnidrop.pruning import checks
from omnidrop.pruning.method import Entry, EntryView, Need, Plan
from omnidrop.pruning.parts.entry_only import EntryMethod
from omnidrop.pruning.parts.merging import mixed
from omnidrop.pruning.parts.select import even, shares, top
from omnidrop.tokens import TokenMap


@dataclass(frozen=True)
class VisionZip(EntryMethod):
    """Keeps the tokens their encoder attends to most, and averages the others into a few.

    Based on VisionZip (https://arxiv.org/abs/2412.04467) and its public code.

    Published: of every image the tokens with the highest attention received stay ("dominant"); of
    the rest, evenly spaced ones become "contextual" tokens, and each token left is averaged into
    the contextual one most like it.

    Ours: an image is one temporal grid, and each keeps the same share; the audio of every chunk is
    treated alike, by its own encoder's attention; similarity is the cosine of the embeddings, not
    of the encoder's keys; a contextual token is the mean of all its tokens, where the public code
    adds the others' mean to it and so doubles its length. Where an encoder reports no attention,
    the dominant tokens are spaced evenly.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    contextual : float, default 0.15625
        Share of the kept tokens that are contextual (paper: 10 of 64, 20 of 128, 30 of 192).
    """

    name: ClassVar[str] = "visionzip"
    wants: ClassVar[frozenset[str]] = frozenset({Need.VIDEO_ATTENTION})

    contextual: float = 10 / 64

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("contextual", self.contextual, low=0, high=1)

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {"contextual": (0.0, 0.08, 10 / 64, 0.3)}

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Keep and merge, one temporal grid or one chunk of audio at a time."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        attention = _attention(view)
        bins, sizes = _bins(view.tokens)
        kept: list[torch.Tensor] = []
        target: list[torch.Tensor] = []
        source: list[torch.Tensor] = []
        quotas = shares(sizes, count)
        merging = shares(quotas, round(self.contextual * count))
        for rows, quota, few in zip(bins, quotas.tolist(), merging.tolist(), strict=True):
            received = attention[rows]
            if bool(received.isnan().any()):
                dominant = even(len(rows), quota - few)
            else:
                dominant = top(received, quota - few)
            kept.append(rows[dominant])
            if few:
                rest = torch.ones(len(rows), dtype=torch.bool)
                rest[dominant] = False
                left = rows[rest]
                chosen = torch.arange(few) * (len(left) // few)
                kept.append(left[chosen])
                place = _nearest(view.embeds[left.to(view.embeds.device)], chosen)
                target.append(left[chosen[place]])
                source.append(left)
        keep = torch.cat(kept).sort().values
        if not target:
            return Entry(keep)
        return mixed(keep, torch.cat(target), torch.cat(source))


def _attention(view: EntryView) -> torch.Tensor:
    """Return the attention each token received in its encoder, (N,); NaN where none is known."""
    out = torch.full((len(view.tokens),), torch.nan)
    for mask, received in (
        (view.tokens.audio, view.audio_attention),
        (view.tokens.video, view.video_attention),
    ):
        if received is not None:
            out[mask] = received.float().cpu()
    return out


def _bins(tokens: TokenMap) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Split token indices into temporal grids and chunks of audio; also return the sizes."""
    grid = tokens.grid[:, 0].long() * tokens.video
    key = (2 * tokens.chunk.long() + tokens.audio) * (int(grid.max()) + 1) + grid
    order = torch.sort(key, stable=True).indices
    sizes = torch.unique(key, return_counts=True)[1]
    return order.split(sizes.tolist()), sizes


def _nearest(embeds: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Return which of the `chosen` rows each row is most like, (n,) int64 on the CPU."""
    units = normalize(embeds.float(), dim=-1)
    place = (units @ units[chosen].T).argmax(1).cpu()
    place[chosen] = torch.arange(len(chosen))
    return place
