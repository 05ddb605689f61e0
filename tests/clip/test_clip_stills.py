"""Small pictures of a clip, and which clips a browser plays."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnidrop.clip.playback import media_type
from omnidrop.clip.probe import probe
from omnidrop.clip.stills import stills
from omnidrop.testing import media


@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (media.mp4, "a.mp4", "video/mp4"),
        (media.silent_mp4, "b.mp4", "video/mp4"),
        (media.webm, "c.webm", "video/webm"),
        (media.mkv, "d.mkv", None),
        (media.mov, "e.mov", None),  # its sound is PCM
        (media.avi, "f.avi", None),
        (media.ts, "g.ts", None),
        (media.ten_bit, "h.mp4", None),
        (media.wav, "i.wav", "audio/wav"),
    ],
)
def test_what_browsers_play(
    make: Callable[..., Path], name: str, expected: str | None, tmp_path: Path
) -> None:
    assert media_type(probe(make(tmp_path / name, seconds=1.0))) == expected


@pytest.mark.parametrize(
    ("codec", "name", "expected"),
    [
        ("mp3", "a.mp3", "audio/mpeg"),
        ("flac", "b.flac", "audio/flac"),
        ("aac", "c.m4a", "audio/mp4"),
    ],
)
def test_sound_that_browsers_play(codec: str, name: str, expected: str, tmp_path: Path) -> None:
    assert media_type(probe(media.audio_only(tmp_path / name, codec))) == expected


def test_codecs_that_not_all_browsers_decode(tmp_path: Path) -> None:
    info = probe(media.mp4(tmp_path / "a.mp4", seconds=1.0))
    assert info.video is not None
    for change in ({"codec": "hevc"}, {"codec": "mpeg4"}, {"pixel_format": "yuv444p"}):
        assert media_type(replace(info, video=replace(info.video, **change))) is None
    assert media_type(replace(info, video=replace(info.video, codec="libdav1d"))) == "video/mp4"
    surround = replace(info, audio=(replace(info.audio[0], codec="ac3"),))
    assert media_type(surround) is None


def read(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).transpose(2, 0, 1)


def test_stills_are_the_frames_on_screen(tmp_path: Path) -> None:
    info = probe(media.mp4(tmp_path / "a.mp4", seconds=6.0, fps=5, size=(480, 360)))
    found = stills(info, [4.1, 0.5, 4.1, -1.0], side=240, quality=95)
    assert [still.time for still in found] == [0.0, 0.5, 4.1]
    assert [media.frame_number(read(still.jpeg)) for still in found] == [0, 2, 20]
    for still in found:
        assert (still.width, still.height) == (240, 180)
        assert read(still.jpeg).shape == (3, 180, 240)


def test_stills_keep_their_shape_and_are_not_enlarged(tmp_path: Path) -> None:
    upright = probe(media.rotated(tmp_path / "b.mp4", degrees=90, seconds=1.0))
    assert upright.video is not None
    (still,) = stills(upright, [0.2], side=100)
    assert still.height == 100
    assert still.width < still.height
    small = probe(media.mp4(tmp_path / "c.mp4", seconds=1.0))
    (still,) = stills(small, [0.2], side=1000)
    assert (still.width, still.height) == (160, 120)


def test_no_stills_of_sound_or_of_no_time(tmp_path: Path) -> None:
    assert stills(probe(media.wav(tmp_path / "a.wav")), [0.5]) == []
    assert stills(probe(media.mp4(tmp_path / "b.mp4", seconds=1.0)), []) == []
