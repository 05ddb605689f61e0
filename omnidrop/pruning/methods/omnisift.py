"""OmniSIFT: video by its own change, audio by a trained selector that sees the video kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from omnidrop.errors import UsageError
from omnidrop.pruning import checks
from omnidrop.pruning.method import Backbone, Entry, EntryView, Plan
from omnidrop.pruning.parts import selector as parts
from omnidrop.pruning.parts.entry_only import EntryMethod


@dataclass(frozen=True)
class OmniSift(EntryMethod):
    """Keeps video that differs in space or time, and audio that a trained selector chooses by it.

    Based on OmniSIFT (https://arxiv.org/abs/2602.04804) and its public code.

    Published:

    - Chunks of two temporal grids. In the first, the tokens most like (cosine) the grid's mean are
      dropped; in the second, those most like the same place in the first; a share of 0.7 each.
    - Audio of the chunk is scored by a selector: linear layers to 512 channels with layer norms,
      attention of 8 heads from audio to the video that was kept, and two linear layers with a
      sigmoid; 4.86 million parameters at a width of 3584. The lowest share of 0.3 is dropped.
    - The selector is trained together with the LLM, by the answer's cross-entropy with a
      straight-through estimate; positions stay as they were.

    Ours: a chunk is the model's own (two seconds, so two grids at two frames a second); where it
    has more grids, every second one is compared with the one before; a chunk without video has its
    audio scored alone. The number of tokens is met exactly, and each grid and each chunk gets its
    share. The selector can also be trained with the LLM frozen; see
    `omnidrop train-selector --help` for its constants.

    Parameters
    ----------
    budget : float, default 1.0
        Mean over the layers of (AV tokens entering the layer) / N.
    selector : str, optional
        Folder of a selector made by `omnidrop train-selector`; None takes the one in the model's
        own folder.
    rho_a, rho_v : float, default 0.3 and 0.7
        Pruning rates of audio and video (public code). They set how audio and video share the
        budget: below these rates' total both are scaled, above it both approach 1 (ours).
    """

    name: ClassVar[str] = "omnisift"
    files: ClassVar[frozenset[str]] = frozenset({"selector"})

    selector: str | None = None
    rho_a: float = parts.RHO_A
    rho_v: float = parts.RHO_V

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selector is not None and not (
            isinstance(self.selector, str) and self.selector.strip()
        ):
            raise UsageError(f"selector must name a folder, not {self.selector!r}.")
        checks.number("rho_a", self.rho_a, low=0, high=1)
        checks.number("rho_v", self.rho_v, low=0, high=1)

    def tunable(self) -> dict[str, tuple[Any, ...]]:
        """Return the values that `omnidrop calibrate` tries."""
        return {"rho_a": (0.1, 0.3, 0.5, 0.7), "rho_v": (0.5, 0.7, 0.85)}

    def check_model(self, backbone: Backbone, width: int) -> None:
        """Check that there is a selector."""
        parts.find(self.selector, backbone, width)

    def enter(self, view: EntryView, plan: Plan) -> Entry:
        """Choose video by rule, then audio by the selector."""
        total, count = plan.total, plan.counts[0]
        if count == total:
            return Entry(torch.arange(total))
        tokens, embeds = view.tokens, view.embeds
        network = None
        if bool(tokens.audio.any()):
            found = parts.find(self.selector, view.backbone, embeds.shape[1])
            network = found.to(embeds.device)
        n_audio, n_video = parts.quotas(tokens, count, self.rho_a, self.rho_v)
        return Entry(parts.sift(network, tokens, embeds, n_audio, n_video).keep)
