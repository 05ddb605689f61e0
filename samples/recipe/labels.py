"""Labels of each audio and video token of a clip: the targets of towers and probes."""

from __future__ import annotations

import numpy as np
from avsynth.picture import coverage, frame_times
from avsynth.world import COLOURS, DIGITS, INSTRUMENTS, SHAPES, Clip

NONE = -1


def audio_labels(clip: Clip, n: int) -> dict[str, np.ndarray]:
    """Return the labels of each audio token: instrument shares, order, previous instrument.

    Returns
    -------
    dict with `share` (n, 8), `order` (n,), `previous` (n,) instrument or -1, `was_short` (n,),
    `current` (n,) index of the instrument or -1 (silence).
    """
    starts = np.arange(n) * 0.04
    share = np.zeros((n, len(INSTRUMENTS)), np.float32)
    order = np.zeros(n, np.int64)
    previous = np.full(n, NONE)
    was_short = np.zeros(n, np.int64)
    for k, s in enumerate(clip.sounds or ()):
        i = INSTRUMENTS.index(s.instrument)
        share[:, i] += np.clip(
            (np.minimum(s.end, starts + 0.04) - np.maximum(s.start, starts)) / 0.04, 0, 1
        )
        order[starts >= s.start - 0.02] = k + 1
        nxt = clip.sounds[k + 1].start if k + 1 < len(clip.sounds) else s.end
        later = starts >= nxt - 0.02
        previous[later], was_short[later] = i, int(s.short)
    current = np.where(share.max(1) > 0.5, share.argmax(1), NONE)
    return {
        "share": share,
        "order": order,
        "previous": previous,
        "was_short": was_short,
        "current": current,
    }


def video_labels(clip: Clip) -> dict[str, np.ndarray]:
    """Return the labels of each video token (grid-major): its cover by a shape, and the digit.

    Returns
    -------
    dict with `cover` (n, frames=2), `event` (n, 2) index of the shape event or -1, `digit` (n,)
    share of the two frames with the plate in this cell, and the same per grid: `grid_event` (g,)
    or -1 (none) or -2 (two events), `grid_digit` (g,) bool.
    """
    times = frame_times(clip.duration)
    if len(times) % 2:
        times = np.append(times, times[-1])
    grids = len(times) // 2
    rows, cols = clip.height // 28, clip.width // 28
    cover = np.zeros((grids, 2, rows * cols), np.float32)
    event = np.full((grids, 2), NONE)
    digit = np.zeros((grids, 2, rows * cols), np.float32)
    for f, t in enumerate(times):
        g, k = divmod(f, 2)
        for i, s in enumerate(clip.shapes or ()):
            if s.start <= t < s.end:
                event[g, k] = i
                cover[g, k] = coverage(s, t, clip.width, clip.height).reshape(-1)
        flash = clip.flash
        if flash and flash.start <= t < flash.end:
            r = 0 if "top" in flash.corner else rows - 1
            c = 0 if "left" in flash.corner else cols - 1
            digit[g, k, r * cols + c] = 1
    a, b = event[:, 0], event[:, 1]
    return {
        "cover": cover,
        "event": event,
        "digit": digit,
        "rows": rows,
        "cols": cols,
        "grids": grids,
        "grid_event": np.where(a == b, a, -2),
        "grid_digit": digit.any((1, 2)),
    }


class Speaker:
    """Turns labels into target vectors: the output of an ideal tower."""

    def __init__(self, concepts: dict[str, np.ndarray]) -> None:
        at = concepts
        self.sound = np.stack([at[i] + 0.4 * at["instrument"] for i in INSTRUMENTS])
        self.silence = at["silence"]
        self.shape = np.stack([at[s] + 0.4 * at["shape"] for s in SHAPES])
        self.colour = np.stack([at[c] for c in COLOURS])
        self.digit = np.stack([at[d] + 0.7 * at["digit"] for d in DIGITS])
        self.background = 0.5 * at["background"]
        self.words = at

    def audio(self, labels: dict[str, np.ndarray]) -> np.ndarray:
        """Return the target vectors of the audio tokens, (n, width)."""
        share = labels["share"]
        rest = np.clip(1 - share.sum(1, keepdims=True), 0, 1)
        return share @ self.sound + rest * self.silence

    def plate(self, digit: str, colour: str, corner: str) -> np.ndarray:
        """Return the target vector of a token that shows the digit."""
        a, b = corner.split()
        return (
            self.digit[DIGITS.index(digit)]
            + self.colour[COLOURS.index(colour)]
            + 0.8 * (self.words[a] + self.words[b])
        )

    def video(self, clip: Clip, labels: dict[str, np.ndarray], least: float = 0.06) -> np.ndarray:
        """Return the target vectors of the video tokens, (n, width)."""
        g, _, n = labels["cover"].shape
        out = np.zeros((g, n, self.silence.shape[0]), np.float32)
        for k in range(2):
            seen = labels["cover"][:, k] > least
            for i, s in enumerate(clip.shapes or ()):
                say = self.shape[SHAPES.index(s.shape)] + self.colour[COLOURS.index(s.colour)]
                on = seen & (labels["event"][:, k] == i)[:, None]
                out += 0.5 * on[..., None] * say
            out += 0.5 * (~seen)[..., None] * self.background
        if clip.flash:
            f = clip.flash
            on = labels["digit"].max(1)[..., None]  # one frame is enough
            out = out * (1 - 0.7 * on) + on * self.plate(f.digit, f.colour, f.corner)
        return out.reshape(g * n, -1)
