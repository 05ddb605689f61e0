"""Order and rotary positions of a clip's tokens in the prompt, by the template of the family."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omnidrop.models.qwen2_5_omni.template import SPECIALS, QwenOmniTemplate
from omnidrop.tokens import Media

#: Ids do not matter here, only order and positions do.
_TEMPLATE = QwenOmniTemplate(**{field: i for i, field in enumerate(SPECIALS)})


@dataclass(frozen=True)
class AvLayout:
    """The clip's tokens in prompt order, after the bos and before the eos tokens.

    Attributes
    ----------
    is_audio : (n,) bool
    index : (n,) which audio token, or which video token (grid-major, then row, then column)
    positions : (3, n) rotary positions counted from the clip's first position
    end : position of the eos tokens, counted likewise
    """

    is_audio: np.ndarray
    index: np.ndarray
    positions: np.ndarray
    end: int


def audio_tokens(samples: int) -> int:
    """Return the number of audio tokens of 16 kHz audio (log-mel frames of 10 ms)."""
    return _TEMPLATE.audio_tokens(-(-samples // 160))


def av_layout(n_audio: int, grids: int, rows: int, cols: int) -> AvLayout:
    """Lay out a clip of `grids` grids of rows × cols tokens, one a second, and its audio."""
    merge = _TEMPLATE.merge
    grid = (grids, merge * rows, merge * cols) if grids else None
    clip = _TEMPLATE.clip(Media(grid, 1.0 if grids else None, n_audio), start=-1)
    inside = clip.tokens.av
    cells = clip.tokens.grid[inside].numpy().astype(np.int64)
    is_audio = clip.tokens.audio[inside].numpy()
    video = (cells[:, 0] * rows + cells[:, 1]) * cols + cells[:, 2]
    return AvLayout(
        is_audio=is_audio,
        index=np.where(is_audio, cells[:, 0], video),
        positions=clip.positions[:, inside].numpy(),
        end=int(clip.end) - 1,
    )
