"""Damaged files, options that cannot be meant, identity, closing."""

from __future__ import annotations

import pytest
import torch

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.log_mel import LogMel
from omnidrop.clip.specs import MediaSpec, VideoSpec
from omnidrop.errors import MediaError, UsageError
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole


@pytest.mark.parametrize(
    ("name", "function"),
    [("a.mp4", media.faststart_mp4), ("a.mkv", media.mkv), ("a.ts", media.ts),
     ("a.avi", media.avi), ("a.webm", media.webm), ("b.mp4", media.fragmented_mp4),
     ("a.gif", media.gif)],
)  # fmt: skip
@pytest.mark.parametrize("keep", [0.3, 0.6])
def test_files_cut_off_answer_on_what_is_there(tmp_path, name, function, keep, capfd):
    path = media.truncated(function(tmp_path / name), keep)
    with open_clip(path) as clip:
        data = read_whole(clip)
        assert 2 <= len(data.frames) < 8
        assert [round(media.frame_number(f) / 12.5) for f in data.frames][:1] == [0]
        if name != "a.gif":
            assert any("truncated" in note for note in clip.notices)
            assert 0 < len(data.audio) < 16_000 * 4 * 0.9
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_sound_cut_off(tmp_path, name, capfd):
    path = media.truncated(media.wav(tmp_path / name, seconds=30))
    with open_clip(path) as clip:
        assert len(read_whole(clip).audio) == pytest.approx(240_000, rel=0.3)
        if name in ("a.wav", "a.flac"):
            assert any("truncated" in note for note in clip.notices)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "function"),
    [("a.mp4", media.faststart_mp4), ("a.mkv", media.mkv), ("a.ts", media.ts),
     ("a.avi", media.avi), ("a.flac", media.wav), ("a.mp3", media.wav), ("a.gif", media.gif)],
)  # fmt: skip
def test_damage_in_the_middle_is_survived(tmp_path, name, function, seed, capfd):
    path = media.damaged(function(tmp_path / name), 0.5, 0.6, seed)
    try:
        with open_clip(path) as clip:
            data = read_whole(clip)
            assert len(data.frames) or len(data.audio)
    except MediaError as refused:
        text = str(refused)
        assert len(text) > 40
    assert capfd.readouterr() == ("", "")


def test_a_header_that_promises_more_than_a_large_file_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("omnidrop.clip.probe._ALWAYS_MEASURED", 0)
    path = media.truncated(media.faststart_mp4(tmp_path / "a.mp4", seconds=8))
    with open_clip(path) as clip:
        assert clip.plan.fps == 2
        assert len(clip.plan.times) == 16
        data = read_whole(clip)
        assert 6 <= len(data.frames) <= 10
        assert any("video ends at" in note for note in clip.notices)
        assert any("audio ends at" in note for note in clip.notices)


def test_gaps_are_noticed(tmp_path):
    times = [i / 25 for i in range(25)] + [3 + i / 25 for i in range(25)]
    with open_clip(media.variable_rate(tmp_path / "a.mkv", times)) as clip:
        read_whole(clip)
        assert any("no frames between 1.0 s and 3.0 s" in note for note in clip.notices)


def test_nothing_decodes(tmp_path):
    path = media.faststart_mp4(tmp_path / "a.mp4", sounds=[])
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    with pytest.raises(MediaError, match="cannot be decoded"):
        open_clip(path)


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"fps": float("inf")}, {"start": -1},
        {"start": 3, "end": 2}, {"start": 3, "end": 3}, {"end": 0}, {"max_frames": 1},
        {"min_frames": 0}, {"max_pixels": 0}, {"min_pixels": 5_000, "max_pixels": 4_000},
        {"video": False, "audio": False}, {"audio_track": -1},
        {"audio": False, "audio_file": "a.wav"},
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant(options):
    with pytest.raises(UsageError):
        ClipOptions(**options)


def test_a_pixel_limit_holds_a_token(kind):
    with pytest.raises(UsageError, match=r"784 \(28x28, one token\), not 10"):
        open_clip(kind("mp4"), ClipOptions(max_pixels=10))
    spec = MediaSpec(video=VideoSpec(patch_size=16))
    with pytest.raises(UsageError, match=r"1024 \(32x32, one token\), not 800"):
        open_clip(kind("mp4"), ClipOptions(max_pixels=800), spec)


def test_a_clip_is_replanned_without_another_probe(kind, monkeypatch):
    path = kind("mp4")
    with open_clip(path) as clip:
        monkeypatch.setattr("omnidrop.clip.clip.probe", lambda _: pytest.fail("probed again"))
        other = clip.replanned(ClipOptions(fps=1, start=1.0), MediaSpec(VideoSpec(patch_size=16)))
        again = clip.replanned()
    monkeypatch.undo()
    with open_clip(path, ClipOptions(fps=1, start=1.0), other.spec) as whole:
        assert other.identity == whole.identity
        assert other.plan.size == whole.plan.size
        assert read_whole(other).frames.equal(read_whole(whole).frames)
        assert other.notices == whole.notices
    assert again.identity == clip.identity
    assert again.seconds_to_open > clip.seconds_to_open > 0


def test_start_and_end_against_the_file(kind):
    with pytest.raises(UsageError, match=r"4\.0"):
        open_clip(kind("silent"), ClipOptions(start=4.5))
    with open_clip(kind("silent"), ClipOptions(end=100)) as clip:
        assert clip.duration == pytest.approx(4)
        assert any("ends at 4.00 s" in note for note in clip.notices)


def test_identity_is_of_contents_and_settings(kind, tmp_path):
    path = kind("mp4")
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(path.read_bytes())
    with open_clip(path) as one, open_clip(copy) as two:
        assert one.identity == two.identity
        assert read_whole(one).identity == one.identity
    with open_clip(path, ClipOptions(fps=1)) as other:
        assert other.identity != one.identity
    with open_clip(path, ClipOptions(start=1)) as other:
        assert other.identity != one.identity


def test_identity_of_a_large_file(kind, monkeypatch):
    monkeypatch.setattr("omnidrop.clip.container._BLOCK", 64)
    path = kind("mov")
    with open_clip(path) as clip:
        assert len(clip.identity) == 64


def test_a_closed_clip_is_closed(kind):
    with open_clip(kind("mp4")) as clip:
        assert "a.mp4" in repr(clip)
    with pytest.raises(ValueError, match="closed"):
        next(clip.frame_chunks())
    with pytest.raises(ValueError, match="closed"):
        clip.log_mel()


def test_streams_can_be_left_half_way(kind):
    with open_clip(kind("mp4")) as clip:
        frames, sound = clip.frame_chunks(), clip.audio_blocks()
        next(frames)
        next(sound)
        frames.close()
        sound.close()
        assert isinstance(clip.log_mel(), torch.Tensor)
        assert LogMel  # both features come from one definition
