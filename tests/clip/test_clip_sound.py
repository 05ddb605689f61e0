"""Sound of every kind of file: late, long, short, several tracks, none."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.log_mel import log_mel
from omnidrop.errors import MediaError, UsageError
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole


def loudness(sound: torch.Tensor, start: float, end: float) -> float:
    return float(sound[int(start * 16_000) : int(end * 16_000)].abs().mean())


def difference(part: torch.Tensor, whole: torch.Tensor, start: int) -> float:
    """Largest difference; a millisecond of shift is Matroska's clock."""
    shifted = (whole[start + shift :][: len(part)] for shift in range(-17, 18))
    return min(float((part - other).abs().max()) for other in shifted)


def pitch(sound: torch.Tensor) -> float:
    spectrum = torch.fft.rfft(sound[8_000:24_000]).abs()
    return float(spectrum.argmax()) * 16_000 / 16_000


def test_sound_that_begins_late_is_preceded_by_silence(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        with open_clip(media.late_audio(tmp_path / name)) as clip:
            sound = read_whole(clip).audio
            assert loudness(sound, 0, 1.45) < 0.001
            assert loudness(sound, 1.55, 3.9) > 0.2
            assert len(sound) == pytest.approx(4 * 16_000, abs=1_000)


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "mov", "avi"])
def test_sound_between_start_and_end(kind, name):
    with open_clip(kind(name), ClipOptions(video=False)) as clip:
        whole = read_whole(clip).audio
    with open_clip(kind(name), ClipOptions(start=2.5, end=3.25, video=False)) as clip:
        part = read_whole(clip).audio
    assert len(part) == 12_000
    assert difference(part, whole, 40_000) < 0.05


def test_several_tracks(tmp_path):
    path = media.several_tracks(tmp_path / "a.mp4")
    with open_clip(path) as clip:
        assert any("2 audio tracks" in note for note in clip.notices)
        assert [track.language for track in clip.info.audio] == ["eng", "deu"]
        assert pitch(read_whole(clip).audio) == pytest.approx(440, abs=2)
    with open_clip(path, ClipOptions(audio_track=1)) as clip:
        assert pitch(read_whole(clip).audio) == pytest.approx(1000, abs=2)
    with pytest.raises(UsageError, match="no audio track 2; it has 0, 1"):
        open_clip(path, ClipOptions(audio_track=2))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.wav", None), ("a.flac", None), ("a.ogg", None), ("a.mp3", None),
     ("a.m4a", "aac"), ("a.mka", "libopus"), ("a.opus", "libopus"), ("b.mp3", "libmp3lame")],
)  # fmt: skip
def test_sound_alone(tmp_path, name, codec):
    path = tmp_path / name
    if codec:
        media.audio_only(path, codec, rate=48_000, channels=2)
    else:
        media.wav(path, channels=2, rate=48_000)
    with open_clip(path) as clip:
        assert not clip.has_video
        assert clip.plan is None
        data = read_whole(clip)
        assert data.frames.shape[0] == 0
        assert len(data.audio) == pytest.approx(48_000, abs=900)
        assert pitch(data.audio) == pytest.approx(440, abs=2)
        # Channels are averaged: the second is half as loud.
        assert float(data.audio[8_000:40_000].abs().max()) == pytest.approx(0.3, abs=0.02)
    with open_clip(path, ClipOptions(start=2.2, end=2.7)) as clip:
        part = read_whole(clip).audio
    assert len(part) == 8_000
    assert difference(part, data.audio, 35_200) < 0.05


def test_cover_art_is_no_picture(tmp_path):
    for name, codec in [("a.mp3", "libmp3lame"), ("a.m4a", "aac")]:
        path = media.audio_only(tmp_path / name, codec, cover=True)
        with open_clip(path) as clip:
            assert not clip.has_video
            assert clip.log_mel().shape[1] == pytest.approx(300, abs=5)


def test_sound_longer_and_shorter_than_the_picture(tmp_path):
    path = media.mp4(tmp_path / "a.mp4", seconds=2, sounds=[{"seconds": 5}])
    with open_clip(path) as clip:
        assert clip.duration == pytest.approx(5, abs=0.05)
        data = read_whole(clip)
        assert len(data.frames) == 10  # the last frame stays on screen
        assert (data.frames[4:] == data.frames[4]).all()
        assert len(data.audio) == pytest.approx(80_000, abs=800)
    with open_clip(path, ClipOptions(start=3)) as clip:
        assert torch.equal(read_whole(clip).frames[-1], data.frames[-1])
        assert any("video ends at 2.00 s" in note for note in clip.notices)
    path = media.mp4(tmp_path / "b.mp4", seconds=4, sounds=[{"seconds": 1}])
    with open_clip(path) as clip:
        data = read_whole(clip)
        assert len(data.frames) == 8
        assert len(data.audio) == pytest.approx(16_000, abs=800)
    with open_clip(path, ClipOptions(start=2)) as clip:
        assert clip.has_video
        assert not clip.has_audio
        assert clip.log_mel() is None
        assert any("no audio within" in note for note in clip.notices)
    with pytest.raises(UsageError, match="before the end"):
        open_clip(path, ClipOptions(start=2, video=False))


def test_another_sound_track(tmp_path, kind):
    other = media.wav(tmp_path / "b.wav", hertz=1000)
    with open_clip(kind("silent"), ClipOptions(audio_file=other, start=1)) as clip:
        sound = read_whole(clip).audio
        assert pitch(sound) == pytest.approx(1000, abs=2)
        assert len(sound) == 32_000
        first = clip.identity
    media.wav(other, hertz=900)
    with open_clip(kind("silent"), ClipOptions(audio_file=other, start=1)) as clip:
        assert clip.identity != first
    with pytest.raises(MediaError, match="no audio"):
        open_clip(kind("mp4"), ClipOptions(audio_file=kind("silent")))


def test_a_silent_track_is_noticed(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(16_000, np.float32), 16_000)
    with open_clip(path) as clip:
        assert clip.log_mel().shape == (128, 100)
        assert "The audio track is silent." in clip.notices


def test_log_mel_is_that_of_the_sound(kind):
    with open_clip(kind("mp4")) as clip:
        assert torch.equal(clip.log_mel(), log_mel(read_whole(clip).audio))


def test_a_blink_of_sound(tmp_path):
    path = media.wav(tmp_path / "a.wav", seconds=0.02)
    with pytest.raises(MediaError, match="too short"):
        open_clip(path)
    path = media.mp4(tmp_path / "a.mp4", sounds=[{"codec": "pcm_s16le", "seconds": 0.02}], container="mov")  # fmt: skip  # noqa: E501
    with open_clip(path) as clip:
        assert clip.has_video
        assert not clip.has_audio
        assert any("too short" in note for note in clip.notices)


def test_sound_is_cut_to_the_picture_asked_for_only(kind):
    with open_clip(kind("silent")) as clip:
        assert not clip.has_audio
        assert list(clip.audio_blocks()) == []
        assert read_whole(clip).audio is None
    with open_clip(kind("mp4"), ClipOptions(audio=False)) as clip:
        assert not clip.has_audio
        assert not clip.notices
    with open_clip(kind("mp4"), ClipOptions(video=False)) as clip:
        assert not clip.has_video
        assert list(clip.frame_chunks()) == []
