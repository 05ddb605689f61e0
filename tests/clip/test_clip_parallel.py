"""Readers side by side give the frames of one, whatever the file is like."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from omnidrop.clip import clip as clip_file
from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.frames import parallel
from omnidrop.clip.frames import reader as video
from omnidrop.clip.options import Stopwatch
from omnidrop.clip.prefetch import Prefetch
from omnidrop.clip.specs import MediaSpec
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole
from tests.clip.kinds import KINDS
from tests.clip.test_clip_decode import wanted
from tests.clip.test_clip_leaps import NAMES, make
from tests.some import every

KEYED = {"long", "long_ts", "long_mkv", "open_gop", "intra"}  # with key frames all along


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Split even the smallest clip; the list gets the number of readers of each."""
    monkeypatch.setattr(parallel, "_MIN_PIXELS", 0.0)
    monkeypatch.setattr(parallel, "_MIN_SAMPLES", 1)
    monkeypatch.setattr(parallel, "_MIN_SECONDS", 0.3)
    monkeypatch.setattr(parallel, "_MAX_SECONDS", 0.6)
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 3)
    used: list[int] = []
    shares = parallel._shares
    monkeypatch.setattr(parallel, "_shares", lambda *a: [used.append(len(s := shares(*a))), s][1])
    return used


def read(path: Path, **options: object) -> tuple[torch.Tensor, list[str]]:
    with open_clip(path, ClipOptions(**options)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        assert not decoders()
        return frames, clip.notices


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "omnidrop-decoder"]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "options",
    every(2, [{}, {"fps": 5.3}, {"start": 1.3, "fps": 3.0}, {"fps": 0.7, "min_frames": 2}]),
)
def test_every_kind_of_file(kind, name, options, side_by_side):
    path = kind(name)
    with open_clip(path, ClipOptions(**options)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        assert torch.equal(frames, wanted(path, clip))
        assert not [note for note in clip.notices if "no frames" in note or "ends at" in note]
    if name in KEYED and len(clip.plan.times) > 8:
        assert side_by_side[0] > 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "missing_keys"])
@pytest.mark.parametrize("options", [{"fps": 3.1}, {"fps": 1.1, "start": 2.3}])
def test_key_frames_of_every_sort(tmp_path, name, options, side_by_side):
    path = make(name, tmp_path)
    with open_clip(path, ClipOptions(**options)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        assert torch.equal(frames, wanted(path, clip))
    if name in ("b_frames", "odd_start", "vp9", "mpeg4", "open_gop"):
        assert side_by_side[0] > 1
    if name == "one_key":
        assert side_by_side == [0]


def test_key_frames_that_are_no_whole_pictures(tmp_path, side_by_side, monkeypatch):
    alone = []
    init = video.FrameReader.__init__
    monkeypatch.setattr(
        video.FrameReader, "__init__", lambda *a, **k: alone.append(k) or init(*a, **k)
    )
    path = make("intra_refresh", tmp_path)
    with open_clip(path, ClipOptions(fps=3.0)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        assert torch.equal(frames, wanted(path, clip))
    if side_by_side[0] > 1:  # found out by one of them, and left to one
        assert alone[-1] == {}


@pytest.mark.parametrize(
    ("name", "function"),
    [("a.mp4", media.faststart_mp4), ("a.mkv", media.mkv), ("a.ts", media.ts),
     ("b.mp4", media.fragmented_mp4), ("a.avi", media.avi)],
)  # fmt: skip
@pytest.mark.parametrize("keep", [0.3, 0.6])
@pytest.mark.parametrize("measured", [True, False])
def test_files_cut_off(tmp_path, name, function, keep, measured, side_by_side, monkeypatch):
    if not measured:  # as with files too large to be read through: the header is believed
        monkeypatch.setattr("omnidrop.clip.probe._ALWAYS_MEASURED", 0)
    options = {} if name == "a.avi" else {"options": {"g": "10"}}
    path = media.truncated(function(tmp_path / name, seconds=9, **options), keep)
    frames, notices = read(path)
    monkeypatch.setattr(parallel, "_MIN_PIXELS", float("inf"))
    expected, said = read(path)
    assert torch.equal(frames, expected)
    assert notices == said


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
@pytest.mark.parametrize(("name", "function"), [("a.mp4", media.faststart_mp4), ("a.ts", media.ts)])
def test_damage_in_the_middle(tmp_path, name, function, seed, side_by_side):
    path = function(tmp_path / name, seconds=9, options={"g": "10"})
    whole, _ = read(path)
    frames, _ = read(media.damaged(path, 0.5, 0.55, seed))
    assert 0.7 * len(whole) < len(frames) <= len(whole)
    early = int(0.3 * len(whole))
    assert torch.equal(frames[:early], whole[:early])


def test_a_picture_held_for_long_at_the_end(tmp_path, side_by_side, monkeypatch):
    """How long the last frame stands depends on gaps that another reader may have seen."""
    times = [i / 25 for i in range(50)] + [4 + i / 25 for i in range(75)]
    monkeypatch.setattr("omnidrop.clip.probe._ALWAYS_MEASURED", 0)
    path = media.variable_rate(tmp_path / "a.mkv", times=times, options={"g": "10"},
                               sounds=[{"codec": "libopus", "rate": 48_000, "seconds": 9}])  # fmt: skip  # noqa: E501
    frames, notices = read(path)
    assert side_by_side[0] > 1
    monkeypatch.setattr(parallel, "_MIN_PIXELS", float("inf"))
    expected, said = read(path)
    assert torch.equal(frames, expected)
    assert notices == said


def test_left_half_way(kind, side_by_side, monkeypatch):
    monkeypatch.setattr("omnidrop.clip.clip._READ_AHEAD", 1)  # two frames each: none can finish
    with open_clip(kind("long"), ClipOptions(fps=5)) as clip:
        chunks = clip.frame_chunks()
        next(chunks)
        assert len(decoders()) > 1
        chunks.close()
        assert not decoders()


def test_what_fails_in_a_reader_is_raised(kind, side_by_side, monkeypatch):
    def fails(image, size, shape):
        raise RuntimeError("no room")

    monkeypatch.setattr("omnidrop.clip.clip._resized", fails)
    with open_clip(kind("long")) as clip, pytest.raises(RuntimeError, match="no room"):
        read_whole(clip)
    assert not decoders()


def test_a_reader_waits_for_those_behind_it(kind, side_by_side, monkeypatch):
    monkeypatch.setattr("omnidrop.clip.clip._READ_AHEAD", 1)  # two frames each
    made = []
    resized = clip_file._resized
    monkeypatch.setattr(clip_file, "_resized", lambda *a, **k: made.append(1) or resized(*a, **k))
    with open_clip(kind("long"), ClipOptions(fps=10), spec=MediaSpec(chunk_seconds=0.2)) as clip:
        chunks = clip.frame_chunks()
        next(chunks)
        threading.Event().wait(0.5)
        assert len(made) <= 2 + 3 * (2 + 1)
        chunks.close()


def test_who_looked_for_key_frames_in_vain_closes_the_file(kind, side_by_side, monkeypatch):
    closed = []
    close = video.FrameReader.close
    monkeypatch.setattr(video.FrameReader, "close", lambda self: closed.append(self) or close(self))
    with open_clip(kind("mp4"), ClipOptions(fps=5)) as clip:  # one key frame only
        read_whole(clip)
    assert side_by_side == [0]
    assert len(closed) == 1


def test_small_clips_are_read_by_one(kind, monkeypatch):
    monkeypatch.setattr(parallel, "_shares", lambda *_: pytest.fail("looked for key frames"))
    with open_clip(kind("long")) as clip:
        read_whole(clip)


def test_shares_are_even_or_none():
    class Keys:
        def __init__(self, *keys):
            self.keys = keys

        def key_frame_near(self, time):
            return max(key for key in self.keys if key <= time)

    times = [n / 2 for n in range(120)]
    shares = parallel._shares(Keys(*range(0, 60, 5)), times, 2)
    assert len(shares) == 2
    merged = sorted(pair for s in shares for pair in zip(s.places, s.spans, strict=True))
    assert [time for _, stretch in merged for time in stretch] == times
    assert parallel._shares(Keys(0), times, 2) == []
    assert parallel._shares(Keys(0, 50), times, 2) == []
    assert len(parallel._shares(Keys(0, 20, 40), times, 4)) == 3
    assert 0 not in parallel._shares(Keys(*range(60)), times, 4)[-1].places


def test_ahead():
    closed = []

    def count():
        try:
            yield from range(5)
        finally:
            closed.append(True)

    assert list(Prefetch(count(), 2, "a")) == [0, 1, 2, 3, 4]
    assert closed == [True]
    ahead = Prefetch(count(), 2, "a")
    assert next(ahead) == 0
    ahead.close()
    assert closed == [True, True]
    assert next(ahead, None) is None

    def fails():
        yield None  # an item like any other
        raise KeyError("gone")

    ahead = Prefetch(fails(), 2, "a")
    assert next(ahead, 1) is None
    with pytest.raises(KeyError, match="gone"):
        next(ahead)
    assert next(ahead, None) is None


def test_stopwatch_of_threads_side_by_side():
    watch, ready = Stopwatch(), threading.Barrier(2)

    def work():
        ready.wait()
        with watch:
            threading.Event().wait(0.2)

    threads = [threading.Thread(target=work) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert 0.19 < watch.seconds < 0.35
    with watch:
        pass
    assert 0.12 < watch.seconds < 0.25
