"""Which frames of a clip are sampled, and to what size they are resized."""

from __future__ import annotations

import math

import numpy as np

from omnidrop.clip.options import ClipOptions, SamplingPlan
from omnidrop.clip.patches import target_size
from omnidrop.clip.specs import VideoSpec
from omnidrop.errors import UsageError


def sampling_plan(
    options: ClipOptions, spec: VideoSpec, seconds: float, height: int, width: int
) -> SamplingPlan:
    """Choose the frames of a clip: one every ``1 / fps`` seconds from its start.

    Parameters
    ----------
    seconds : float
        Length of the video within the selected span.
    height, width : int
        Of the video as displayed.

    Notes
    -----
    The number of frames is the multiple of a temporal patch nearest to ``fps * seconds``. So the
    rate is the one asked for unless a limit applies, chunks stay aligned with the audio, and the
    last frame lies within the clip: 24 frames for 11.9 s. The reference's reader rounds down to an
    even number and spreads the frames over the clip (22, at 1.85 per second), while positions still
    assume two per second.
    """
    depth = spec.temporal_patch_size
    fps = options.fps if options.fps is not None else spec.fps
    count = depth * math.ceil(fps * seconds / depth - 0.5)
    most = options.max_frames if options.max_frames is not None else spec.max_frames
    most = max(depth, most // depth * depth)
    least = options.min_frames if options.min_frames is not None else spec.min_frames
    least = min(most, -(-least // depth) * depth)
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


def check_limits(options: ClipOptions, spec: VideoSpec) -> None:
    """Refuse a limit on frames or pixels below what a model's smallest token takes.

    Raises
    ------
    UsageError
    """
    depth, side = spec.temporal_patch_size, spec.factor
    if options.video and options.max_frames is not None and options.max_frames < depth:
        raise UsageError(
            f"max_frames must be at least {depth}, not {options.max_frames}.",
            hint=f"The model reads {depth} frames together.",
        )
    for name in ("min_pixels", "max_pixels"):
        value = getattr(options, name)
        if value is not None and value < side * side:
            raise UsageError(
                f"{name} must be at least {side * side} ({side}x{side}, one token), not {value}."
            )
