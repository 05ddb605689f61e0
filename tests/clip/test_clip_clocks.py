"""Clocks that break, leap or are missing, and frames that stay on screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnidrop.clip.audio import audio_blocks
from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.clock import PacketTimes, aligned, find_clocks
from omnidrop.clip.frames.packets import Damage
from omnidrop.clip.matroska import recordings
from omnidrop.clip.probe import probe
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole

FORMATS = {
    "a.ts": ({}, "aac", 0),
    "a.mpg": ({"codec": "mpeg2video", "options": {"bf": "2"}}, "mp2", 0),
    "a.flv": ({"codec": "flv1"}, "aac", 13),
    "a.mkv": ({"options": {"g": "25"}}, "aac", 0),
}


def part(path: Path, first: int, hertz: float, rest: dict, sound: str, seconds: float = 4) -> Path:
    sounds = [{"codec": sound, "hertz": hertz}]
    return media.write(path, seconds=seconds, sounds=sounds, first=first, **rest)


def numbers(frames) -> list[int]:
    return [media.frame_number(frame) for frame in frames]


def pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(np.asarray(samples) * np.hanning(len(samples))))
    return float(spectrum.argmax() * 16_000 / len(samples))


def check_pictures(frames, fps: float = 2.0, first: float = 0.0, within: int = 3) -> None:
    due = [round((first + n / fps) * 25) for n in range(len(frames))]
    assert np.abs(np.array(numbers(frames)) - due).max() <= within


@pytest.mark.parametrize("name", FORMATS)
def test_joined_files_are_one_clip(tmp_path, name):
    rest, sound, header = FORMATS[name]
    count = 2 if name == "a.mkv" else 3  # libav reads two joined Matroska files, and no more
    parts = [
        part(tmp_path / f"{n}{name}", 100 * n, 500 + 500 * n, rest, sound) for n in range(count)
    ]
    path = media.joined(tmp_path / name, *parts, header=header)
    with open_clip(path) as clip:
        assert clip.duration == pytest.approx(4 * count, abs=0.25)
        assert any("The file's clock breaks" in note for note in clip.notices)
        data = read_whole(clip)
        assert not [n for n in clip.notices if "amaged" in n or "no frames" in n], clip.notices
    assert len(data.frames) == 8 * count
    check_pictures(data.frames)
    for second in range(1, 4 * count, 2):
        hertz = 500 + 500 * (second // 4)
        block = data.audio[second * 16_000 : second * 16_000 + 8_000]
        assert pitch(block) == pytest.approx(hertz, abs=5)
    with open_clip(path, ClipOptions(start=5, end=7)) as clip:
        data = read_whole(clip)
    check_pictures(data.frames, first=5)
    assert pitch(data.audio[:8000]) == pytest.approx(1000, abs=5)


@pytest.mark.parametrize("name", FORMATS)
def test_a_start_within_a_broadcast_is_no_damage(tmp_path, name):
    rest, sound, _ = FORMATS[name]
    path = part(tmp_path / name, 0, 500, rest, sound, seconds=8)
    for start in (3.3, 4.17, 5.9):
        with open_clip(path, ClipOptions(start=start)) as clip:
            check_pictures(read_whole(clip).frames, first=start)
            assert not clip.notices


def test_a_clock_that_leaps_ahead(tmp_path):
    source = media.ts(tmp_path / "a.ts", seconds=8)
    path = media.remuxed(tmp_path / "b.ts", source, {"video": 3600, "audio": 3600}, after=5.5)
    assert probe(source).notices == ()
    with open_clip(path) as clip:
        assert clip.duration == pytest.approx(8, abs=0.2)
        assert any("clock breaks once" in note for note in clip.notices)
        data = read_whole(clip)
    check_pictures(data.frames)
    assert len(data.audio) == pytest.approx(8 * 16_000, abs=3200)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_streams_on_clocks_of_their_own(tmp_path, kind):
    source = media.mp4(tmp_path / "a.mp4")
    path = media.remuxed(tmp_path / "b.mp4", source, {kind: 1_700_000_000})
    with open_clip(path, ClipOptions(start=1)) as clip:
        assert clip.duration == pytest.approx(3, abs=0.1)
        assert any("different clocks" in note for note in clip.notices)
        data = read_whole(clip)
    check_pictures(data.frames, first=1)
    assert len(data.audio) == pytest.approx(3 * 16_000, abs=1600)


def test_a_gap_of_one_stream_is_no_leap(tmp_path):
    source = media.ts(tmp_path / "a.ts", seconds=3)
    with open_clip(media.remuxed(tmp_path / "b.ts", source, {"audio": 8}, after=2.4)) as clip:
        assert not [note for note in clip.notices if "clock" in note]
        assert clip.duration == pytest.approx(11, abs=0.2)


def test_what_edits_leave_out_is_not_shown(tmp_path):
    source = media.mp4(tmp_path / "a.mp4", seconds=12, options={"g": "40", "bf": "3"})
    path = media.edited(tmp_path / "b.mp4", source, [(3.2, 0), (4, 7.48)])
    due = [0, 12, 25, 37, 50, 62, 75, 194, 207, 219, 232, 244, 257, 269]
    for options in (ClipOptions(), ClipOptions(start=2), ClipOptions(fps=1.0)):
        with open_clip(path, options) as clip:
            shown = numbers(read_whole(clip).frames)
        want = due[round(2 * (options.start or 0)) :: round(2 / (options.fps or 2))]
        shown = shown[: len(want)]
        assert len(shown) == len(want)
        assert np.abs(np.array(shown) - want).max() <= 2, options


@pytest.mark.parametrize(("name", "codec"), [("a.h264", "libx264"), ("a.hevc", "libx265")])
def test_frames_without_times_are_counted(tmp_path, name, codec):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"bf": "2"}
    try:
        path = media.write(tmp_path / name, codec=codec, options=options, seconds=6)
    except ValueError:
        pytest.skip("this build of PyAV encodes no HEVC")
    with open_clip(path) as clip:
        assert clip.duration == pytest.approx(6, abs=0.1)
        assert any("stores no times" in note for note in clip.notices)
        check_pictures(read_whole(clip).frames)
    with open_clip(path, ClipOptions(start=3, end=5)) as clip:
        check_pictures(read_whole(clip).frames, first=3)


# Frames that stay


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.webm", "a.ts"])
@pytest.mark.parametrize("measured", [True, False])
def test_the_last_frame_stays_until_the_end(tmp_path, name, measured, monkeypatch):
    if not measured:
        monkeypatch.setattr("omnidrop.clip.probe._ALWAYS_MEASURED", 0)
    codec = {"a.webm": "libvpx"}.get(name, "libx264")
    sound = {"codec": "libopus" if name == "a.webm" else "aac", "seconds": 14, "rate": 48_000}
    path = media.write(tmp_path / name, times=[0, 1, 2, 3], codec=codec, sounds=[sound])
    for start in (0, 10):
        with open_clip(path, ClipOptions(start=start, end=14)) as clip:
            frames = read_whole(clip).frames
            assert numbers(frames) == [min(3, (start * 2 + n) // 2) for n in range(len(frames))]
            assert len(frames) == 28 - 2 * start
            assert not [n for n in clip.notices if "amaged" in n or "announced" in n]


def test_one_picture_under_long_sound(tmp_path):
    sounds = [{"codec": "aac", "seconds": 9}]
    with open_clip(media.write(tmp_path / "a.mp4", times=[0], sounds=sounds)) as clip:
        frames = read_whole(clip).frames
    assert len(frames) == 18
    assert (frames == frames[0]).all()


# The parts


@pytest.mark.parametrize("measured", [True, False])
def test_silence_over_a_leap_is_bounded(tmp_path, measured, monkeypatch):
    if not measured:
        monkeypatch.setattr("omnidrop.clip.probe._ALWAYS_MEASURED", 0)
    source = media.mp4(tmp_path / "a.mp4")
    path = media.remuxed(tmp_path / "b.mp4", source, {"audio": 10_000}, after=2)
    with open_clip(path) as clip:
        samples = sum(len(block) for block in clip.audio_blocks())
        assert any("leap" in note for note in clip.notices)
        if measured:
            assert clip.duration == pytest.approx(4, abs=0.1)
            check_pictures(read_whole(clip).frames)
    assert samples == pytest.approx(4 * 16_000, abs=3200)


def test_alignment_of_streams():
    notices: list[str] = []
    assert aligned({0: (0.0, 10.0), 1: (9.0, 5.0), 2: (300.0, None)}, notices) == {}
    assert not notices
    assert aligned({0: (1e9, 10.0), 1: (3.0, 5.0)}, notices) == {0: 3.0 - 1e9}
    assert len(notices) == 1


def test_breaks_need_more_than_reordered_packets():
    steady = [5.0 * n + t for n in range(8) for t in (0, 4, 1, 3, 2)]
    positions: list[int | None] = [10 * n or None for n in range(len(steady))]
    for times, breaks in [(steady, 0), ([*steady[:20], *(t - 20 for t in steady[20:])], 1)]:
        notices: list[str] = []
        stream = PacketTimes(shown=list(times), positions=list(positions))
        clocks = find_clocks({0: stream}, 0, {"matroska", "webm"}, notices)
        assert len(clocks[0].breaks) == len(notices) == breaks
        assert stream.shown == steady
        assert clocks[0].sequential is bool(breaks)


def test_audio_blocks_are_of_the_steady_clock(tmp_path):
    source = media.mp4(tmp_path / "a.mp4")
    info = probe(media.remuxed(tmp_path / "b.mp4", source, {"audio": 5_000}))
    (track,) = info.audio
    assert track.clock.shift == pytest.approx(-5_000, abs=0.1)
    blocks = audio_blocks(
        info.path, track, file_format=info.format, alone=False, origin=3.0, length=None,
        rate=16_000, damage=Damage(),
    )  # fmt: skip
    assert sum(len(block) for block in blocks) == pytest.approx(16_000, abs=1600)


def test_of_three_joined_matroska_files_the_last_is_not_lost_in_silence(tmp_path):
    parts = [media.mkv(tmp_path / f"{n}.mkv", seconds=2.0) for n in range(3)]
    said = "The file is 3 recordings, one behind the other; only the first 2 are read."
    for count in (1, 2, 3):
        path = media.joined(tmp_path / f"joined{count}.mkv", *parts[:count])
        with open_clip(path) as clip:
            assert (said in clip.notices) == (count == 3)


@pytest.mark.parametrize("data", [b"", b"\x1a", b"\x1a\x45\xdf\xa3", b"\0" * 9, b"\xff" * 40])
def test_headers_that_make_no_sense_are_one_recording(tmp_path, data):
    path = tmp_path / "a.mkv"
    path.write_bytes(data)
    assert recordings(path) == 1
