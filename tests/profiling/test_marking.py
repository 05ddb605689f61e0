"""Marks on frames, captions, and the heading of the contact sheet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omnidrop.profiling.contact_sheet import contact_sheet
from omnidrop.profiling.marking import caption, dimmed, enlargement, outlined, wrapped
from omnidrop.profiling.survivors import Replay, ReplayedChunk
from omnidrop.report.trace import Moment


def test_dropped_things_stay_recognisable() -> None:
    kept = np.array([[False]])
    for one, other in (((235, 20, 30), (58, 60, 68)), ((14, 14, 14), (34, 34, 34)),
                       ((255, 255, 255), (180, 180, 180))):  # fmt: skip
        frame = np.full((4, 8, 3), one, dtype=np.uint8)
        frame[:, 4:] = other
        found = dimmed(frame, kept).astype(int)
        assert np.abs(found[0, 0] - found[0, 7]).max() >= 10  # the two are still told apart
        assert found.min() >= 16  # nothing sinks into black
        assert found.mean() < max(40, 0.75 * frame.mean())


def test_an_outline_stands_where_kept_meets_dropped() -> None:
    frame = np.zeros((8, 8, 3), dtype=np.uint8)
    found = outlined(frame, np.array([[True, False], [False, False]])).any(axis=2)
    assert found[3, :4].all()
    assert found[:4, 3].all()
    assert not found[4:].any()
    assert not found[:3, :3].any()  # nor at the frame's own border
    assert not outlined(frame, np.array([[True]])).any()


def test_a_caption_is_as_wide_as_the_picture_and_never_runs_out() -> None:
    for width in (360, 641, 1920):
        found = caption(width, [("Why " + "x" * 500 + "?", False), ("word " * 200, True)])
        assert found.shape[1:] == (width, 3)
        assert (found[:, -3:] == found[0, 0]).all()  # no glyph reaches the edge
        assert found.max() > 200
    assert enlargement(112) == 4
    assert enlargement(1920) == 1


@pytest.mark.parametrize("text", ["", "a", "one two three", "x" * 50, "one " * 40])
def test_wrapped_lines_fit(text: str) -> None:
    lines = wrapped(text, lambda line: len(line) <= 12, most=3)
    assert 1 <= len(lines) <= 3
    assert all(len(line) <= 12 for line in lines)
    whole = "".join("".join(lines).split())
    expected = "".join(text.split())
    assert whole == expected or (whole[-1] == "…" and expected.startswith(whole[:-1]))


def test_the_contact_sheet_names_question_answer_and_moments() -> None:
    def chunk(start: float, relevance: float | None) -> ReplayedChunk:
        frame = np.zeros((28, 56, 3), dtype=np.uint8)
        kept = np.array([[True, False]])
        return ReplayedChunk(start, start + 2, frame, kept, 1, 2, None, None, None, relevance)

    sight = Replay("omnidrop 0.2", 4, 8, tuple(chunk(2.0 * i, r) for i, r in enumerate((0.1, 0.9))),
                   question="Why?", answer="piano", moments=(Moment(1.9, 3.0, 0.8),))  # fmt: skip
    figure = contact_sheet(sight)
    said = [text.get_text() for text in figure.texts]
    assert {"Why?", "Answer: piano", "attention 10 %", "attention 90 % · moment"} <= set(said)
    assert len(figure.patches) + len(figure.artists) >= 1
    unmeasured = replace(sight, chunks=(chunk(0, None),), moments=(), question="")
    plain = [text.get_text() for text in contact_sheet(unmeasured).texts]
    assert not [text for text in plain if "attention" in text or "Answer" in text]


def test_dimmed_leaves_survivors_alone() -> None:
    frame = np.full((5, 7, 3), (200, 100, 50), dtype=np.uint8)
    found = dimmed(frame, np.array([[True, False], [False, True]]))
    assert (found[0, 0] == frame[0, 0]).all()
    assert (found[4, 6] == frame[4, 6]).all()
    dark = found[0, 6].astype(int)
    assert dark.max() < 120  # darker, and paler: less than half as far apart
    assert 0 < dark.max() - dark.min() < 0.5 * (200 - 50)
    assert found.shape == frame.shape
    assert found.dtype == np.uint8
