"""Which track is read where a file has several."""

from __future__ import annotations

import numpy as np
import pytest

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.errors import MediaError, UsageError
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole


def film(path, **rest):
    return media.mp4(path, **{"seconds": 3, **rest})


def preview(path, **rest):
    rest = {"seconds": 3, "size": (64, 48), "first": 500, "sounds": [], **rest}
    return media.mp4(path, **rest)


def first_number(path, **options) -> int:
    with open_clip(path, ClipOptions(**options)) as clip:
        return media.frame_number(read_whole(clip).frames[0])


def pitch(path, **options) -> float:
    with open_clip(path, ClipOptions(**options)) as clip:
        audio = np.asarray(read_whole(clip).audio)[:16_000]
    return float(np.abs(np.fft.rfft(audio)).argmax())


def test_the_film_is_shown_and_not_its_preview(tmp_path):
    small, large = preview(tmp_path / "p.mp4"), film(tmp_path / "f.mp4")
    path = media.combined(tmp_path / "a.mp4", small, large, default={0, 1, 2})
    with open_clip(path) as clip:
        assert clip.info.video.index == 1
        assert any("2 video tracks; track 1 (160x120) is used" in note for note in clip.notices)
    assert first_number(path) == 0
    assert first_number(path, video_track=0) == 500
    assert first_number(path, video_track=1) == 0
    with pytest.raises(UsageError, match="no video track 2; it has 0, 1"):
        open_clip(path, ClipOptions(video_track=2))


def test_the_default_comes_first(tmp_path):
    small, large = preview(tmp_path / "p.mp4"), film(tmp_path / "f.mp4")
    path = media.combined(tmp_path / "a.mkv", large, small, default={2})
    assert first_number(path) == 500
    with open_clip(path) as clip, clip.replanned(ClipOptions(video_track=0)) as other:
        assert media.frame_number(read_whole(other).frames[0]) == 0


def test_a_still_picture_is_no_film(tmp_path):
    still = media.write(tmp_path / "s.mkv", codec="mjpeg", pixels="yuvj420p", size=(320, 240),
                        seconds=0.04, first=900)  # fmt: skip
    path = media.combined(tmp_path / "a.mkv", still, film(tmp_path / "f.mp4"), default=())
    assert first_number(path) == 0


def test_the_second_programme_if_the_first_is_scrambled(tmp_path):
    one = film(tmp_path / "1.mp4", first=500, sounds=[{"codec": "aac", "hertz": 440}])
    two = film(tmp_path / "2.mp4", sounds=[{"codec": "aac", "hertz": 1000}])
    path = media.combined(tmp_path / "a.ts", one, two)
    assert first_number(path) == 500
    assert pitch(path) == 440
    assert first_number(path, video_track=1) == 0
    assert pitch(path, video_track=1) == 1000
    path = media.scrambled(path, {0x100, 0x101})
    assert first_number(path) == 0
    assert pitch(path) == 1000
    with open_clip(path, ClipOptions(video_track=0)) as clip:
        assert not clip.has_video
        assert any("cannot be decoded" in note for note in clip.notices)
    with pytest.raises(MediaError, match="cannot be decoded"):
        open_clip(media.scrambled(path, {0x102, 0x103}))


@pytest.mark.parametrize(("default", "hertz"), [((), 1000), ({1}, 1000), ({2}, 1000), ({3}, 1500)])
def test_a_silent_track_is_passed_over(tmp_path, default, hertz):
    sounds = [{"codec": "aac", "hertz": h} for h in (0, 1000, 1500)]
    source = film(tmp_path / "s.mp4", sounds=sounds)
    path = media.combined(tmp_path / "a.mkv", source, default=default)
    assert pitch(path) == hertz
    with open_clip(path, ClipOptions(audio_track=0)) as clip:
        assert not np.asarray(read_whole(clip).audio).any()


def test_silent_tracks_alone(tmp_path):
    path = film(tmp_path / "a.mp4", sounds=[{"codec": "aac", "hertz": 0}] * 2)
    with open_clip(path) as clip:
        read_whole(clip)
        assert any("2 audio tracks; track 0 is used" in note for note in clip.notices)
        assert any("silent" in note for note in clip.notices)
