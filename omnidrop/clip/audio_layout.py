"""Channel layouts: which channels a track has, and how they become one.

A channel of a stereo track counts half. Of more channels the centre, which carries speech, counts
as much as left and right together, channels behind and above a quarter, and the bass channel not
at all; the weights add up to 1, so that nothing can clip. Stereo stays the average that librosa
makes for the reference.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

_FRONT = {"FL", "FR", "FLC", "FRC", "WL", "WR", "DL", "DR", "SDL", "SDR"}
_CENTRE = {"FC"}
_BASS = {"LFE", "LFE2"}
_CANCELLED = 0.03  # share of its channels' power below which a mix counts as cancelled
_OPPOSED = -0.9  # correlation below which a channel counts as the inverse of the loudest one


@dataclass(frozen=True)
class AudioLayout:
    """The channels of an audio track.

    Parameters
    ----------
    names : tuple of str
        libav's short names, such as "FL"; "NONE" or the like where the file does not say.
    """

    names: tuple[str, ...]

    @classmethod
    def of(cls, context: Any) -> AudioLayout:
        """Return the layout of a track whose decoder is not open yet.

        Must be called before the first packet is decoded, for every track that is decoded.

        Notes
        -----
        QuickTime, CAF and AIFF can list channels in any order. PyAV from 17.1 on frees such a list
        once for each of its objects that mentions it, which aborts the process. So the one object
        made here is never freed, and the decoder is given a layout without a list; the names
        remember the order.
        """
        layout = context.layout
        names = tuple(channel.name for channel in layout.channels)
        if _is_listed(layout):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
            context.layout = f"{len(names)} channels"
        return cls(names)

    def weights(self) -> np.ndarray:
        """Return each channel's share of the mix: float32 (C,), summing to 1."""
        count = len(self.names)
        if count <= 2 or not _FRONT & set(self.names):
            return np.full(count, 1.0 / max(1, count), dtype=np.float32)
        found = np.array([_weight(name) for name in self.names], dtype=np.float32)
        return found / found.sum()


def _is_listed(layout: Any) -> bool:
    """Whether the order is a list; libav calls such a layout "6 channels (FL+FR+...)"."""
    return "(" in layout.name and "ambisonic" not in layout.name


def _weight(name: str) -> float:
    if name in _CENTRE:
        return 1.0
    if name in _FRONT:
        return 0.5
    return 0.0 if name in _BASS else 0.25


def mix(samples: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, bool]:
    """Mix channels into one; channels that would cancel each other are inverted first.

    Parameters
    ----------
    samples : ndarray, float32, (S, C)
        Finite.
    weights : ndarray, float32, (C,)

    Returns
    -------
    mono : ndarray, float32, (S,)
    inverted : bool
        Whether a channel was inverted: a microphone's balanced signal, recorded as stereo, holds
        the same wave twice with opposite signs.
    """
    if samples.shape[1] == 1:
        return samples[:, 0], False
    mono = samples @ weights
    mono_power = float(mono @ mono)
    # The power of all channels together is one fast product, and tells in nearly all cases.
    if mono_power >= _CANCELLED * float(weights.max()) ** 2 * float(np.vdot(samples, samples)):
        return mono, False
    power = np.einsum("sc,sc->c", samples, samples)
    if mono_power >= _CANCELLED * float(weights**2 @ power):
        return mono, False
    loudest = int(np.argmax(power * weights))
    products = samples.T @ samples[:, loudest]
    limit = np.sqrt(power * power[loudest])
    opposed = products < _OPPOSED * limit
    if not opposed.any():
        return mono, False
    return samples @ np.where(opposed, -weights, weights).astype(np.float32), True
