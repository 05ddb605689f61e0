"""Cutting: both streams, the right frames, the right length, and no file half written."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

import omnidrop
from omnidrop.clip.cut import joined, write_cut
from omnidrop.clip.options import ClipOptions
from omnidrop.errors import UsageError
from omnidrop.testing import media

FPS = 10


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """Eight seconds at 10 fps whose pictures are numbered, with a tone."""
    return media.mp4(tmp_path_factory.mktemp("film") / "film.mp4", seconds=8.0, fps=FPS)


def frames(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [
            media.frame_number(frame.to_ndarray(format="rgb24").transpose(2, 0, 1))
            for frame in container.decode(video=0)
        ]


def seconds(path: Path) -> dict[str, float]:
    with av.open(str(path)) as container:
        return {s.type: float(s.duration * s.time_base) for s in container.streams}


def test_a_cut_has_the_frames_and_the_sound_of_its_span(film, tmp_path) -> None:
    target = tmp_path / "cut.mp4"
    with omnidrop.open_clip(film) as clip:
        assert write_cut(clip, [(2.0, 4.0)], target) == [(2.0, 4.0)]
    assert frames(target) == list(range(20, 40))
    assert seconds(target) == pytest.approx({"video": 2.0, "audio": 2.0}, abs=0.05)
    with omnidrop.open_clip(target) as cut:
        sound = np.concatenate(list(cut.audio_blocks()))
    assert float(np.abs(sound[3200:-3200]).mean()) > 0.05


def test_several_parts_are_joined_in_order_of_time(film, tmp_path) -> None:
    target = tmp_path / "cut.mkv"
    with omnidrop.open_clip(film) as clip:
        written = write_cut(clip, [(6.0, 7.0), (1.0, 2.0)], target, margin=0.5)
    assert written == [(0.5, 2.5), (5.5, 7.5)]
    assert frames(target) == [*range(5, 25), *range(55, 75)]
    with omnidrop.open_clip(target) as cut:
        assert cut.duration == pytest.approx(4.0, abs=0.06)
        sound = np.concatenate(list(cut.audio_blocks()))
    assert len(sound) == pytest.approx(4 * 16_000, abs=1200)


def test_a_cut_stays_within_the_part_that_was_asked_about(film, tmp_path) -> None:
    target = tmp_path / "cut.mov"
    with omnidrop.open_clip(film, ClipOptions(start=3.0, end=5.0)) as clip:
        assert write_cut(clip, [(3.0, 4.0)], target, margin=1.0) == [(3.0, 5.0)]
    assert frames(target) == list(range(30, 50))


def test_a_short_part_at_the_end_is_written(film, tmp_path) -> None:
    target = tmp_path / "cut.mp4"
    with omnidrop.open_clip(film) as clip:
        end = clip.duration
        write_cut(clip, [(7.7, 9.0)], target)
    found = frames(target)
    assert found == sorted(found)
    assert found[0] == 77
    assert seconds(target)["video"] == pytest.approx(end - 7.7, abs=0.11)


@pytest.mark.parametrize(
    ("options", "streams"),
    [(ClipOptions(audio=False), {"video"}), (ClipOptions(video=False), {"audio"})],
    ids=["picture", "sound"],
)
def test_what_is_left_out_of_the_clip_is_left_out_of_the_cut(film, tmp_path, options, streams):
    target = tmp_path / "cut.mp4"
    with omnidrop.open_clip(film, options) as clip:
        write_cut(clip, [(2.0, 3.0)], target)
    assert seconds(target).keys() == streams
    assert list(seconds(target).values()) == [pytest.approx(1.0, abs=0.05)]


def test_a_silent_clip_and_a_sound_file_can_be_cut(tmp_path) -> None:
    silent = media.silent_mp4(tmp_path / "silent.mp4", seconds=3.0)
    song = media.audio_only(tmp_path / "song.m4a", "aac")
    for source, streams in ((silent, {"video"}), (song, {"audio"})):
        target = tmp_path / f"{source.stem}-cut.mp4"
        with omnidrop.open_clip(source) as clip:
            write_cut(clip, [(1.0, 2.0)], target)
        assert seconds(target).keys() == streams


def test_a_file_is_kept_unless_forced(film, tmp_path) -> None:
    target = tmp_path / "cut.mp4"
    target.write_text("mine")
    with omnidrop.open_clip(film) as clip:
        with pytest.raises(UsageError, match="exists"):
            write_cut(clip, [(1.0, 2.0)], target)
        assert target.read_text() == "mine"
        write_cut(clip, [(1.0, 2.0)], target, force=True)
    assert frames(target) == list(range(10, 20))
    assert [path.name for path in tmp_path.iterdir()] == ["cut.mp4"]


@pytest.mark.parametrize(
    ("name", "span", "said"),
    [("cut.gif", (1, 2), "written as video"), ("cut.mp4", (20, 30), "No part of the clip")],
)
def test_what_cannot_be_cut_says_why(film, tmp_path, name, span, said) -> None:
    with omnidrop.open_clip(film) as clip, pytest.raises(UsageError, match=said):
        write_cut(clip, [span], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_spans_are_ordered_widened_and_joined() -> None:
    assert joined([(4, 6), (0, 2), (2, 3)], 0, 10) == [(0, 3), (4, 6)]
    assert joined([(4, 6), (0, 2)], 1, 5, 1) == [(1, 5)]
    assert joined([(8, 9)], 0, 5) == []
