"""A whole clip in memory, for tests and benchmarks that compare all of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from omnidrop.clip.clip import Clip


@dataclass(frozen=True, eq=False)
class WholeClip:
    """Frames, uint8 (T, 3, H, W); audio, float32 (S,) or None; true frames per second; identity."""

    frames: torch.Tensor
    audio: torch.Tensor | None
    fps: float
    identity: str


def read_whole(clip: Clip) -> WholeClip:
    """Read frames and audio in parallel, as the engine does."""
    with ThreadPoolExecutor(1) as pool:
        audio = pool.submit(lambda: list(clip.audio_blocks()))
        size, most = (clip.plan.size, len(clip.plan.times)) if clip.plan else ((0, 0), 0)
        frames, taken = torch.empty((most, 3, *size), dtype=torch.uint8), 0
        for chunk in clip.frame_chunks():
            frames[taken : taken + len(chunk.frames)] = chunk.frames
            taken += len(chunk.frames)
        blocks = audio.result()
    return WholeClip(
        frames=frames[:taken],
        audio=torch.from_numpy(np.concatenate(blocks)) if blocks else None,
        fps=clip.plan.fps if clip.plan is not None else 0.0,
        identity=clip.identity,
    )
