"""Colours: the matrix and the range that a stream names are those it is decoded by."""

from __future__ import annotations

import pytest

from omnidrop.clip.clip import open_clip
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole

RED = (200, 40, 30)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["709", "601", "2020"])
def test_a_flat_red_stays_red(tmp_path, matrix, full):
    with open_clip(media.flat_colour(tmp_path / "a.mkv", RED, matrix, full)) as clip:
        frame = read_whole(clip).frames[0].float()
    assert frame.mean((1, 2)).tolist() == pytest.approx(RED, abs=4)
