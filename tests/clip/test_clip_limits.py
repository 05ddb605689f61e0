"""Claims that nothing backs: ages, leaps, frames beyond any screen; mutated files."""

from __future__ import annotations

import numpy as np
import pytest

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.frames import large
from omnidrop.errors import MediaError
from omnidrop.testing import fuzz, media
from omnidrop.testing.whole_clip import read_whole


def test_one_frame_an_age(tmp_path):
    path = media.write(tmp_path / "a.y4m", codec="rawvideo", container="yuv4mpegpipe", seconds=1)
    data = path.read_bytes()
    path.write_bytes(data.replace(b" F25:1 ", b" F1:2000000000 "))
    with pytest.raises(MediaError, match="days; its times cannot be right"):
        open_clip(path)
    with open_clip(path, ClipOptions(end=10)) as clip:
        assert len(read_whole(clip).frames) == 20


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
def test_silence_before_late_sound_is_bounded(tmp_path, name):
    sounds = [{"codec": "pcm_s16le" if name == "a.mov" else "aac", "start": 30_000, "seconds": 2}]
    with open_clip(media.write(tmp_path / name, sounds=sounds)) as clip:
        samples = sum(len(block) for block in clip.audio_blocks())
        assert samples < 16_000 * 4_000
        assert clip.notices


def test_large_frames_are_scaled_while_they_are_converted(tmp_path, monkeypatch):
    path = media.silent_mp4(tmp_path / "a.mp4", size=(640, 480), seconds=2)
    options = ClipOptions(max_pixels=28 * 28 * 20)
    with open_clip(path, options) as clip:
        whole = read_whole(clip).frames
    monkeypatch.setattr(large, "LARGE", 320 * 240)
    with open_clip(path, options) as clip:
        scaled = read_whole(clip).frames
    assert scaled.shape == whole.shape
    assert float((scaled.float() - whole.float()).abs().mean()) < 3
    assert [media.frame_number(f) for f in scaled] == [media.frame_number(f) for f in whole]


def test_frames_that_cannot_be_held_are_refused(tmp_path, monkeypatch):
    path = media.mp4(tmp_path / "a.mp4", size=(640, 480), seconds=1)
    monkeypatch.setattr(large, "LARGE", 320 * 240)
    monkeypatch.setattr(large, "host_memory_free", lambda: 1_000_000)
    with pytest.raises(MediaError, match=r"640x480; decoding it takes .* GB of memory are free"):
        open_clip(path)
    monkeypatch.setattr(large, "host_memory_free", lambda: 10_000_000)
    with open_clip(path) as clip:
        assert clip.has_video


def test_sizes_of_large_frames():
    assert large.reduced(7680, 4320) == (7680, 4320)
    width, height = large.reduced(16_384, 16_384)
    assert width * height <= large.LARGE
    assert large.reduced(1 << 26, 1)[1] == 1


def test_mutants_are_the_same_for_a_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SEEDS", {n: fuzz.SEEDS[n] for n in ("a.wav", "a.gif", "a.aac")})
    one = list(fuzz.mutants(tmp_path, 9, seed=4))
    assert one == list(fuzz.mutants(tmp_path, 9, seed=4))
    assert one != list(fuzz.mutants(tmp_path, 9, seed=5))
    assert all(data != (tmp_path / f"a.{name.split('.')[1]}").read_bytes() for name, data in one)


def test_faults_are_found(tmp_path, monkeypatch):
    path = media.float_wav(tmp_path / "a.wav", np.zeros(32_000))
    assert fuzz.read(path) == "answered: 0 frames, 200 mel frames"
    monkeypatch.setattr("omnidrop.clip.log_mel.LogMel.finish", lambda _: 1 / 0)
    assert fuzz.read(path).startswith("exception: ZeroDivisionError")
    path.write_bytes(b"")
    assert fuzz.read(path) == "refused: The file is empty."


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_files_are_answered_on_or_refused(tmp_path, seed):
    assert fuzz.run(tmp_path, 200, seed) == []
