"""Stored outputs of the trained towers for many clips, on which the decoder is trained.

The towers are not trained any more, so their output is computed once per clip, and decoder training
does not run them again. Outputs are kept in half precision, in memory and on disk.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from avsynth.picture import draw_frames, frame_times
from avsynth.sound import Bank, render_sound
from avsynth.wide import WideOptions, draw_wide
from avsynth.world import Clip, WorldOptions, draw_clip

from .batches import Sample, make_sample
from .labels import Speaker
from .lessons import worn, worn_sound
from .towers import hear, see

WORLD = WorldOptions()


def tower_vectors(
    audio: torch.nn.Module,
    vision: torch.nn.Module,
    clip: Clip,
    bank: Bank,
    rng: np.random.Generator | None,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the outputs of both towers for a clip; with `rng`, frames are degraded first."""
    a = v = None
    with torch.no_grad():
        if clip.sounds is not None:
            sound = render_sound(clip, bank, bend=rng is not None)
            a = hear(audio, sound if rng is None else worn_sound(sound, rng)).numpy()
        if clip.shapes is not None:
            frames = draw_frames(clip, frame_times(clip.duration))
            if rng is not None and rng.random() < 0.8:
                frames = worn(frames, rng)
            v = see(vision, frames).numpy()
    return a, v


def build_pool(
    audio: torch.nn.Module,
    vision: torch.nn.Module,
    speaker: Speaker,
    bank: Bank,
    count: int,
    path: Path,
    first_seed: int = 600_000_000,
    options: WorldOptions = WORLD,
    log: Callable[[str], None] = print,
    wide_share: float = 0.0,
    wide_s: float = 20.0,
) -> None:
    """Write `count` clips with their tower outputs to `path`, atomically.

    The file is a pickle: load only files that this recipe wrote.

    Parameters
    ----------
    audio, vision, speaker, bank : the trained towers, and what renders a clip
    count, path, first_seed, options : which clips, and where to
    log : gets a line now and then
    wide_share : share of clips that `avsynth.wide` draws, evenly spread; the others stay as they
        are
    wide_s : length of the longest of those in seconds
    """
    wide = WideOptions(min_s=min(10.0, wide_s), max_s=wide_s)
    rng = np.random.default_rng(first_seed)
    items, start = [], time.time()
    for i in range(count):
        wider = int((i + 1) * wide_share) > int(i * wide_share)
        seed = first_seed + i
        clip = draw_wide(seed, wide) if wider else draw_clip(seed, options)
        a, v = tower_vectors(audio, vision, clip, bank, rng)
        items.append(
            (
                clip,
                None if a is None else a.astype(np.float16),
                None if v is None else v.astype(np.float16),
            )
        )
        if (i + 1) % 250 == 0:
            log(f"pool {i + 1} {(time.time() - start) / (i + 1):.3f} s/clip")
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_suffix(".tmp")
    tmp.write_bytes(pickle.dumps(items))
    tmp.replace(path)


def load_pool(path: Path, speaker: Speaker) -> list[Sample]:
    """Load the samples of a pool that `build_pool` wrote."""
    rng = np.random.default_rng(0)
    return [
        make_sample(
            clip,
            speaker,
            rng,
            (
                None if a is None else a.astype(np.float32),
                None if v is None else v.astype(np.float32),
            ),
        )
        for clip, a, v in pickle.loads(path.read_bytes())
    ]
