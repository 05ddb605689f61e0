"""Which moments of a clip are looked at, and at what size."""

from __future__ import annotations

import math

import numpy as np

from omnidrop.clip.features import VideoSpec, target_size
from omnidrop.clip.options import ClipOptions, SamplingPlan


def sampling_plan(
    options: ClipOptions, spec: VideoSpec, seconds: float, height: int, width: int
) -> SamplingPlan:
    """Choose the frames of a clip: one every ``1 / fps`` seconds, from its start on.

    Parameters
    ----------
    seconds : float
        Length of the picture within the part selected.
    height, width : int
        Of the picture as it is shown.

    Notes
    -----
    Their number is the even one nearest to ``fps * seconds``, so that the rate is the one asked for
    unless a limit bites, chunks stay aligned with the sound, and the last sample lies within the
    clip: 24 frames for 11.9 s. qwen-omni-utils rounds down to an even number and spreads the frames
    over the clip (22, at 1.85 a second), and its users' positions go on counting two a second.
    """
    depth = spec.temporal_patch_size
    count = depth * math.ceil(options.fps * seconds / depth - 0.5)
    fps = options.fps
    most = max(depth, options.max_frames // depth * depth)
    least = min(most, -(-options.min_frames // depth) * depth)
    if not least <= count <= most:
        count = min(max(count, least), most)
        fps = count / seconds
    size = target_size(
        height,
        width,
        count,
        spec,
        max_pixels=options.max_pixels,
        min_pixels=options.min_pixels,
    )
    times = np.arange(count) / fps
    times.setflags(write=False)
    return SamplingPlan(fps, times, size)
