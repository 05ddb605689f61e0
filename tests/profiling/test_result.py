"""Lines that sum up, ratios to the control, and survivors placed in picture and sound."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omnidrop.profiling.result import (
    PREFILL,
    SELECTION,
    UNACCOUNTED,
    StageStat,
    Timing,
    compared,
    lines,
    summable,
)
from omnidrop.profiling.survivors import first_halved_layer, survivors_at
from omnidrop.report.trace import Stage
from omnidrop.tokens import Kind, TokenMap

STAGES = (
    Stage("open", 0.1),
    Stage("frames", 2.0, overlapped=True),
    Stage("resize", 0.5, within="frames", overlapped=True),
    Stage("patches", 0.25, overlapped=True),
    Stage("log-mel", 0.3, within="sound"),
    Stage("sound", 1.0),
    Stage("vision tower", 3.0),
    Stage("selection", 0.2, within="prefill"),
    Stage("prefill", 2.0),
    Stage("decode", 0.6, within="answer"),
    Stage("detokenise", 0.1, within="answer"),
    Stage("answer", 0.8),
    Stage("something new", 0.4),
)


def test_lines_sum_up_to_the_outside_clock() -> None:
    found = lines(STAGES, 8.0)
    assert math.isclose(sum(line.seconds for line in found.values() if summable(line)), 8.0)
    assert math.isclose(found[UNACCOUNTED].seconds, 8.0 - (0.1 + 1.0 + 3.0 + 2.0 + 0.8 + 0.4))
    assert list(found)[-2:] == ["something new", UNACCOUNTED]


def test_lines_split_what_is_made_of_parts() -> None:
    found = lines(STAGES, 8.0)
    seconds = {name: round(line.seconds, 6) for name, line in found.items()}
    assert (seconds["seek and decode"], seconds["resize and patches"]) == (1.5, 0.75)
    assert (seconds["decode sound"], seconds["log-mel"]) == (0.7, 0.3)
    assert (seconds["further tokens"], seconds["choose tokens"]) == (0.6, 0.1)
    assert found["resize and patches"].overlapped
    assert not found["log-mel"].overlapped
    assert (found[SELECTION].within, found["log-mel"].within) == (PREFILL, None)


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=9))
def test_timing(samples: list[float]) -> None:
    found = Timing.of(samples)
    assert found.low <= found.median <= found.high
    assert found.samples == tuple(samples)


def test_compared_with_the_control() -> None:
    control = StageStat(PREFILL, Timing.of([4.0]), flops=8e9)
    found = compared(StageStat(PREFILL, Timing.of([2.0, 1.0, 9.0]), flops=2e9), control)
    assert (found.speedup, found.predicted, found.achieved) == (2.0, 4.0, 0.5)
    assert found.flops_per_second == 1e9
    beside = compared(StageStat("seek and decode", Timing.of([1.0]), overlapped=True), control)
    assert (beside.speedup, beside.achieved) == (None, None)


@pytest.mark.parametrize(
    ("kept", "layer"), [((8, 8, 8, 8), 2), ((8, 6, 4, 2), 2), ((9, 1, 1), 1), ((), 0)]
)
def test_first_halved_layer(kept: tuple[int, ...], layer: int) -> None:
    assert first_halved_layer(kept) == layer


def small_map() -> TokenMap:
    """Text, then two grids of 1 × 2 video tokens and three audio tokens, in two chunks."""
    rows = [
        (Kind.TEXT, -1, (-1, -1, -1)),
        (Kind.VIDEO, 0, (0, 0, 0)),
        (Kind.VIDEO, 0, (0, 0, 1)),
        (Kind.AUDIO, 0, (0, -1, -1)),
        (Kind.AUDIO, 0, (1, -1, -1)),
        (Kind.VIDEO, 1, (1, 0, 0)),
        (Kind.VIDEO, 1, (1, 0, 1)),
        (Kind.AUDIO, 1, (2, -1, -1)),
    ]
    return TokenMap(
        kind=torch.tensor([int(r[0]) for r in rows], dtype=torch.int8),
        chunk=torch.tensor([r[1] for r in rows], dtype=torch.int32),
        grid=torch.tensor([r[2] for r in rows], dtype=torch.int32),
    )


def test_survivors_stand_where_their_tokens_stood() -> None:
    found = survivors_at(small_map(), (2, 4, 5), layer=7)
    assert found.video is not None
    assert found.audio is not None
    assert found.video.tolist() == [[[False, True]], [[True, False]]]
    assert found.audio.tolist() == [False, True, False]
    assert found.chunk_of_grid.tolist() == [0, 1]
    assert found.chunk_of_audio.tolist() == [0, 0, 1]
