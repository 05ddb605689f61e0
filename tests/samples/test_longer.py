"""Clips made longer: the same events in proportion, the same questions."""

from __future__ import annotations

import numpy as np
import pytest
from avsynth.longer import lengthened
from avsynth.questions import facts_of
from avsynth.testset import test_clip as clip_of
from avsynth.wide import draw_wide
from avsynth.world import Clip

SEEDS = range(940_000_000, 940_000_040)


def events(clip: Clip) -> np.ndarray:
    each = [*(clip.sounds or ()), *(clip.shapes or ()), *([clip.flash] if clip.flash else ())]
    times = [(e.start, e.end) for e in each] + ([clip.silence] if clip.silence else [])
    return np.array(times)


@pytest.mark.parametrize("seed", SEEDS[:10])
def test_events_keep_their_share_of_the_clip(seed: int) -> None:
    clip = clip_of(seed)
    longer = lengthened(clip, 60.0)
    assert longer.duration == 60.0
    np.testing.assert_allclose(events(longer) / 60.0, events(clip) / clip.duration)
    for shape, slow in zip(clip.shapes or (), longer.shapes or (), strict=True):
        moved = shape.vx * (shape.end - shape.start)
        assert slow.vx * (slow.end - slow.start) == pytest.approx(moved)


def test_what_may_be_asked_stays_the_same() -> None:
    for seed in SEEDS:
        clip = clip_of(seed)
        short, long = (
            {(fact.kind, fact.answer) for fact in facts_of(c, np.random.default_rng(0))}
            for c in (clip, lengthened(clip, 60.0))
        )
        assert {kind for kind, _ in short} <= {kind for kind, _ in long}
        assert short <= long


def test_what_cannot_be_made_longer() -> None:
    clip = clip_of(SEEDS[0])
    with pytest.raises(ValueError, match="already"):
        lengthened(clip, clip.duration - 1)
    wide = next(c for c in map(draw_wide, range(40)) if c.words)
    with pytest.raises(ValueError, match="plain"):
        lengthened(wide, 120.0)
