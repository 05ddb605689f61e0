"""What a player does to a decoded picture: fields apart, HDR to SDR, other shapes fitted in."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from omnidrop.clip.patches import resize_frames

__all__ = ["fitted", "hdr_divisor", "tone_mapped", "without_combs"]

_HDR_PIXELS = 1 << 20  # of a frame whose tones are mapped, about; models see fewer
_WHITE = 203.0  # cd/m² of diffuse white in HDR (ITU-R BT.2408)
_PEAK = 1000.0 / _WHITE  # brightness that becomes the brightest SDR level, relative to that white
_KNEE = 0.5  # SDR light up to which tones stay as they are
_SLOPE = 30.6  # of the curve above it: a / log(1 + a) = (_PEAK - _KNEE) / (1 - _KNEE)
_COMB = 10  # grey levels by which a row of a comb differs from both of its neighbours

# Linear light, BT.2020 to BT.709 (ITU-R BT.2087).
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)
_LUMA = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)  # of BT.2020


def without_combs(image: np.ndarray) -> np.ndarray:
    """Interpolate the rows of the second field where it shows another moment than the first.

    Parameters
    ----------
    image : ndarray, uint8 or uint16, (H, W, 3)
        Two woven fields.

    Returns
    -------
    ndarray of the same shape and type
        What does not move keeps all its rows.
    """
    if image.shape[0] < 6:
        return image
    wide = np.dtype(np.int16 if image.dtype == np.uint8 else np.int32)
    rows: np.ndarray = image[1:-1:2].astype(
        wide
    )  # each has a neighbour of the other field on both sides
    above: np.ndarray = image[0:-2:2].astype(wide)[: len(rows)]
    below: np.ndarray = image[2::2].astype(wide)[: len(rows)]
    least = _COMB * (257 if image.dtype == np.uint16 else 1)
    up, down = rows - above, rows - below
    combed = ((up > least) & (down > least)) | ((up < -least) & (down < -least))
    moved = combed.any(axis=2)
    # One thin line is a detail of the picture; a comb has several teeth.
    near = np.zeros_like(moved)
    near[1:] |= moved[:-1]
    near[:-1] |= moved[1:]
    runs = moved & near
    result = image.copy()
    mean = ((above + below) // 2).astype(image.dtype)
    result[1:-1:2] = np.where(runs[..., None], mean, image[1:-1:2])
    if image.shape[0] % 2 == 0:  # the last row has one neighbour
        last = runs[-1][:, None]
        result[-1] = np.where(last, image[-2], image[-1])
    return result


def hdr_divisor(width: int, height: int) -> int:
    """Return by what the sides of an HDR frame are divided before its tones are mapped."""
    return max(1, math.isqrt(width * height // _HDR_PIXELS))


def tone_mapped(image: np.ndarray, transfer: str) -> np.ndarray:
    """Map HDR to SDR.

    Parameters
    ----------
    image : ndarray, uint16, (H, W, 3)
        R, G, B as stored, of BT.2020.
    transfer : str
        ``"PQ"`` (SMPTE ST 2084) or ``"HLG"`` (ARIB STD-B67, shown at 1000 cd/m²).

    Returns
    -------
    ndarray, uint8, (H, W, 3)
        Up to half of the range, tones stay; brighter ones are compressed, so that diffuse white
        comes out at about 220 and 1000 cd/m² at 255.
    """
    light = _light(transfer)[image]
    if transfer == "HLG":
        scene = np.maximum(light @ _LUMA, 1e-6)
        light = light * (_PEAK * scene**0.2)[..., None]
    light = np.maximum(light @ _TO_709.T, 0.0)
    bright = np.maximum(light - _KNEE, 0.0) / (_PEAK - _KNEE)
    curve = _KNEE + (1 - _KNEE) * np.log1p(_SLOPE * bright) / math.log1p(_SLOPE)
    mapped = np.where(light > _KNEE, curve, light).clip(0.0, 1.0) ** (1 / 2.2)
    return (255 * mapped + 0.5).astype(np.uint8)


def _pq(signal: np.ndarray) -> np.ndarray:
    """Return light relative to diffuse white (SMPTE ST 2084)."""
    root = signal ** (1 / 78.84375)
    light = np.maximum(root - 0.8359375, 0.0) / (18.8515625 - 18.6875 * root)
    return 10_000.0 / _WHITE * light ** (1 / 0.1593017578125)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """Return scene light, 0 to 1 (ARIB STD-B67)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


@functools.cache
def _light(transfer: str) -> np.ndarray:
    """Return the light of each of 65,536 levels: float32."""
    signal = np.linspace(0.0, 1.0, 1 << 16)
    return {"PQ": _pq, "HLG": _hlg}[transfer](signal).astype(np.float32)


def fitted(image: Tensor, size: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Resize a frame; one of another shape than the clip's is put between black bars.

    Parameters
    ----------
    image : Tensor, uint8, (1, 3, H, W)
    size : (height, width)
        Of the result.
    shape : (height, width)
        Of the clip's frames as stored, rotation applied; they fill the result.

    Returns
    -------
    Tensor, uint8, (1, 3, height, width)
    """
    height, width = image.shape[-2:]
    if (height, width) == shape:
        return resize_frames(image, size)
    fit = min(shape[0] / height, shape[1] / width)
    inner = (_side(size[0], height * fit / shape[0]), _side(size[1], width * fit / shape[1]))
    if inner == size:
        return resize_frames(image, size)
    result = torch.zeros((*image.shape[:2], *size), dtype=image.dtype)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    result[..., top : top + inner[0], left : left + inner[1]] = resize_frames(image, inner)
    return result


def _side(whole: int, share: float) -> int:
    """Return the share of one side of the frame, in pixels; nearly all of it is all of it."""
    return whole if share > 0.98 else max(1, round(whole * share))
