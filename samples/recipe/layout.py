"""The order of the tokens of a prompt, and their three rows of rotary positions.

Gives the same numbers as transformers' `get_rope_index` for one clip followed by text (tests
compare them), but uses numpy only, so that building a batch takes little time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PER_SECOND, CHUNK = 25, 50


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
    """Return the number of audio tokens of 16 kHz audio (100 mel frames a second, four a token)."""
    frames = -(-samples // 160)
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def av_layout(n_audio: int, grids: int, rows: int, cols: int) -> AvLayout:
    """Interleave by chunks of two seconds, video first; 2 fps, so one grid a second."""
    cell = np.arange(grids * rows * cols)
    t = cell // (rows * cols)
    video = np.stack([t * PER_SECOND, cell // cols % rows, cell % cols])
    sound = np.tile(np.arange(n_audio), (3, 1))
    order, flags, places = [], [], []
    last = 0
    for c in range(max((grids + 1) // 2, -(-n_audio // CHUNK))):
        v = cell[t // 2 == c]
        a = np.arange(c * CHUNK, min((c + 1) * CHUNK, n_audio))
        for part, sub, flag in ((video, v, False), (sound, a, True)):
            if len(sub):
                order.append(sub)
                flags.append(np.full(len(sub), flag))
                places.append(part[:, sub])
                last = int(part[:, sub].max())
    return AvLayout(
        np.concatenate(flags), np.concatenate(order), np.concatenate(places, 1), last + 1
    )
