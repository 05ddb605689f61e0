"""Channels: how many, in which order, what their mix lets through; sizes and samples that lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omnidrop.clip.audio_layout import AudioLayout, mix
from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole


def level(sound: torch.Tensor) -> float:
    """Amplitude of a steady tone."""
    middle = sound[len(sound) // 4 : len(sound) // 2]
    return float(middle.square().mean().sqrt()) * 2**0.5


def pitch(sound: torch.Tensor) -> float:
    spectrum = torch.fft.rfft(sound[:16_000]).abs()
    return float(spectrum.argmax())


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("a.mp4", {"codec": "aac", "channels": 8, "layout": "7.1"}),
        ("a.mkv", {"codec": "flac", "channels": 8, "layout": "7.1"}),
        ("b.mkv", {"codec": "libopus", "channels": 8, "layout": "7.1", "rate": 48_000}),
        ("a.mov", {"codec": "pcm_s16le", "channels": 16}),
        ("c.mkv", {"codec": "pcm_f32le", "channels": 16}),
    ],
)
def test_many_channels(tmp_path, name, sound):
    path = media.write(tmp_path / name, sounds=[{**sound, "gains": [1.0] * sound["channels"]}])
    with open_clip(path) as clip:
        assert clip.info.audio[0].channels == sound["channels"]
        data = read_whole(clip)
    assert pitch(data.audio[8_000:]) == 440
    assert level(data.audio) == pytest.approx(0.4, rel=0.1)
    assert len(data.frames) == 8


@pytest.mark.parametrize("tag", [122, 123, 124])
def test_channels_in_an_order_of_their_own(tmp_path, tag):
    path = media.listed_channels(tmp_path / "a.mov", tag)
    for _ in range(3):
        with open_clip(path) as clip:
            assert clip.info.audio[0].channels == 6
            assert pitch(read_whole(clip).audio[8_000:]) == 440


def test_names_remember_the_order(tmp_path):
    gains = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]  # the fifth is the centre by tag 122: L R Ls Rs C LFE
    sounds = [{"codec": "pcm_s16le", "channels": 6, "layout": "5.1", "gains": gains}]
    with open_clip(media.listed_channels(tmp_path / "a.mov", sounds=sounds)) as clip:
        assert level(read_whole(clip).audio) == pytest.approx(0.4 * 0.4, rel=0.05)


def test_the_centre_is_not_lost(tmp_path):
    sounds = [{"codec": "ac3", "channels": 6, "layout": "5.1(side)", "rate": 48_000,
               "gains": [0, 0, 1, 0, 0, 0]}]  # fmt: skip
    with open_clip(media.write(tmp_path / "a.mkv", sounds=sounds)) as clip:
        assert level(read_whole(clip).audio) > 0.4 * 0.39


@pytest.mark.parametrize("name", ["a.mp4", "a.wav"])
def test_opposite_phases_do_not_cancel(tmp_path, name):
    sound = {"codec": "aac" if name == "a.mp4" else "pcm_s16le", "channels": 2, "gains": [1, -1]}
    path = media.write(tmp_path / name, sounds=[sound], codec="libx264" if name == "a.mp4" else None)  # fmt: skip  # noqa: E501
    with open_clip(path) as clip:
        sound = read_whole(clip).audio
        assert level(sound) == pytest.approx(0.4, rel=0.1)
        assert pitch(sound[8_000:]) == 440
        assert any("opposite phase" in note for note in clip.notices)


def test_ordinary_stereo_is_the_average(tmp_path):
    sounds = [{"codec": "pcm_s16le", "channels": 2, "gains": [1, -0.5]}]
    with open_clip(media.mov(tmp_path / "a.mov", sounds=sounds)) as clip:
        assert level(read_whole(clip).audio) == pytest.approx(0.1, rel=0.05)
        assert not any("phase" in note for note in clip.notices)


def test_weights_add_up_to_one():
    layouts = [("FL",), ("FL", "FR"), ("FL", "FR", "FC", "LFE", "BL", "BR"), ("NONE",) * 5,
               ("LFE", "FC", "BC")]  # fmt: skip
    for names in layouts:
        assert AudioLayout(names).weights().sum() == pytest.approx(1)
    noise = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    mono, inverted = mix(noise, np.full(4, 0.25, np.float32))
    assert not inverted
    np.testing.assert_allclose(mono, noise.mean(1), atol=1e-6)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_whose_sizes_were_never_written(tmp_path, size):
    with open_clip(media.unfinished_wav(tmp_path / "a.wav", size)) as clip:
        assert clip.duration == pytest.approx(3, abs=0.05)
        assert len(read_whole(clip).audio) == pytest.approx(48_000, abs=16)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.opus", "libopus"), ("a.flac", "flac"), ("a.ogg", None), ("b.ogg", "flac")],
)
def test_joined_recordings_are_heard_to_the_end(tmp_path, name, codec):
    path = media.chained(tmp_path / name, codec)
    with open_clip(path) as clip:
        assert clip.duration == pytest.approx(6, abs=0.05)
        assert any("joined" in note for note in clip.notices)
        sound = read_whole(clip).audio
    assert len(sound) == pytest.approx(96_000, abs=900)
    assert (pitch(sound[16_000:]), pitch(sound[64_000:])) == (440, 1000)
    with open_clip(path, ClipOptions(start=4, end=5)) as clip:
        part = read_whole(clip).audio
    assert len(part) == 16_000
    assert pitch(part) == 1000


def test_samples_that_are_no_numbers_are_silence(tmp_path):
    samples = media.tone(2, 16_000)[0]
    samples[4_000:4_100] = np.nan
    samples[8_000:8_010] = np.inf
    samples[9_000:9_010] = -3e38
    with open_clip(media.float_wav(tmp_path / "a.wav", samples)) as clip:
        mel = clip.log_mel()
        assert torch.isfinite(mel).all()
        assert any("120 audio samples are no numbers" in note for note in clip.notices)
    with open_clip(media.float_wav(tmp_path / "b.wav", np.full(32_000, np.nan))) as clip:
        assert torch.isfinite(clip.log_mel()).all()
        assert any("silent" in note for note in clip.notices)
    noise = np.random.default_rng(0).integers(0, 1 << 32, 50_000, dtype=np.uint32).view(np.float32)
    with open_clip(media.float_wav(tmp_path / "c.wav", noise, 44_100)) as clip:
        assert torch.isfinite(clip.log_mel()).all()
