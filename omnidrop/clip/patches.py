"""Frames to patches: what a vision tower reads.

The numbers equal those of the reference processor (the video processor of transformers),
without its dependencies. Pure functions of tensors; no file is opened.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from omnidrop.clip.specs import VideoSpec
from omnidrop.errors import MediaError

__all__ = ["patches", "resize_frames", "target_size"]

_SPEC = VideoSpec()

_SPEC = VideoSpec()

#: The reference refuses frames longer than this many times their width.
MAX_ASPECT_RATIO = 200


def target_size(
    height: int,
    width: int,
    frames: int,
    spec: VideoSpec = _SPEC,
    max_pixels: int | None = None,
    min_pixels: int | None = None,
) -> tuple[int, int]:
    """Size to which the frames of a clip are resized.

    Both sides are multiples of ``spec.factor``, the area lies within the pixel limits, and the
    aspect ratio stays as near as that allows. Each frame gets at most an even share of
    ``spec.total_pixels``, though never less than 1.05 times the lower limit. In a clip with the
    most frames it gets ``spec.long_pixels`` instead, if the model has that limit.

    Parameters
    ----------
    height, width : int
        Size of the decoded frame, rotation applied.
    frames : int
        How many frames the whole clip yields.
    max_pixels, min_pixels : int, optional
        Replace the limits of ``spec``. A ``max_pixels`` below the lower limit lowers it too.

    Returns
    -------
    (height, width) : tuple of int

    Raises
    ------
    MediaError
        If one side is more than 200 times the other.

    Notes
    -----
    ``smart_resize`` and the cap of transformers' video processor with
    ``cap_pixels_per_frame=True``.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise MediaError(
            f"The video is {width}x{height}, and the model takes no frame more than "
            f"{MAX_ASPECT_RATIO} times longer than it is wide.",
            hint="Crop the video, or leave it out (--no-video) if there is audio.",
        )
    upper = spec.max_pixels if max_pixels is None else max_pixels
    lower = min(spec.min_pixels, upper) if min_pixels is None else min_pixels
    if spec.total_pixels is not None:
        share = spec.total_pixels * spec.temporal_patch_size // max(frames, 1)
        if spec.long_pixels is not None and frames >= spec.max_frames:
            share = spec.long_pixels
        upper = min(upper, max(share, int(lower * 1.05)))
    factor = spec.factor
    new_height = round(height / factor) * factor
    new_width = round(width / factor) * factor
    if new_height * new_width > upper:
        shrink = math.sqrt(height * width / upper)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < lower:
        enlarge = math.sqrt(lower / (height * width))
        new_height = math.ceil(height * enlarge / factor) * factor
        new_width = math.ceil(width * enlarge / factor) * factor
    # With a very small lower limit a thin frame would round to zero pixels.
    return max(new_height, factor), max(new_width, factor)


def resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize frames as the reference does: bicubic with antialiasing, on the bytes themselves.

    Parameters
    ----------
    frames : Tensor, uint8, (T, 3, H, W)
    size : (height, width)

    Returns
    -------
    Tensor, uint8, (T, 3, height, width)

    Notes
    -----
    The same in float32 differs by one grey level in places.
    """
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    return torch.nn.functional.interpolate(
        frames, size=tuple(size), mode="bicubic", align_corners=False, antialias=True
    )


def patches(frames: Tensor, spec: VideoSpec = _SPEC) -> tuple[Tensor, tuple[int, int, int]]:
    """Normalise resized frames and cut them into the patches that the vision tower reads.

    Parameters
    ----------
    frames : Tensor, uint8, (T, 3, H, W)
        H and W multiples of ``spec.factor``. If T is no multiple of the temporal patch, the last
        frame is repeated.

    Returns
    -------
    patches : Tensor, float32, (t * h * w, 3 * temporal_patch_size * patch_size²)
        In the order of the tower: by time, then by token, then within a token.
    grid : (t, h, w)
        In patches.

    Raises
    ------
    ValueError
        If the frames have another type or shape than above.
    """
    size, depth, merge = spec.patch_size, spec.temporal_patch_size, spec.merge_size
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(f"frames must be uint8 (T, 3, H, W), not {frames.dtype} {frames.shape}")
    count, channels, height, width = frames.shape
    if count == 0 or height % spec.factor or width % spec.factor:
        raise ValueError(f"cannot cut {count} frames of {height}x{width} into {spec.factor}s")
    if odd := -count % depth:
        frames = torch.cat([frames, frames[-1:].expand(odd, -1, -1, -1)])
    grid = (len(frames) // depth, height // size, width // size)
    # Mean and deviation scaled to bytes, as the reference folds its division by 255 into them.
    mean = (torch.tensor(spec.mean) * 255.0).view(1, 3, 1, 1)
    std = (torch.tensor(spec.std) * 255.0).view(1, 3, 1, 1)
    values = frames.to(torch.float32).sub_(mean).div_(std)
    values = values.view(
        grid[0], depth, channels, grid[1] // merge, merge, size, grid[2] // merge, merge, size
    )
    values = values.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return values.reshape(grid[0] * grid[1] * grid[2], channels * depth * size * size), grid
