"""Frames and sound of every kind of file, against decoding everything from the beginning."""

from __future__ import annotations

import functools
from pathlib import Path

import av
import media
import numpy as np
import pytest
import soundfile
import torch

from omnidrop.clip import video
from omnidrop.clip.decode import ClipOptions, open_clip
from omnidrop.clip.features import LogMel, log_mel, resize_frames
from omnidrop.errors import MediaError, UsageError

LONG = {"seconds": 12, "options": {"g": "12", "preset": "ultrafast", "bf": "2"}, "sounds": []}
KINDS = {
    "mp4": (media.mp4, "a.mp4", {}),
    "silent": (media.silent_mp4, "a.mp4", {}),
    "mkv": (media.mkv, "a.mkv", {}),
    "live": (media.mkv_without_duration, "a.mkv", {}),
    "vp9": (media.webm, "a.webm", {"seconds": 2}),
    "vp8": (media.webm, "a.webm", {"codec": "libvpx", "seconds": 2}),
    "mov": (media.mov, "a.mov", {}),
    "avi": (media.avi, "a.avi", {}),
    "ts": (media.ts, "a.ts", {}),
    "gif": (media.gif, "a.gif", {}),
    "vfr": (media.variable_rate, "a.mp4", {}),
    "vfr_mkv": (media.variable_rate, "a.mkv", {}),
    "ten_bit": (media.ten_bit, "a.mp4", {}),
    "odd": (media.silent_mp4, "a.mp4", {"size": (161, 121), "pixels": "yuv444p"}),
    "fragments": (media.fragmented_mp4, "a.mp4", {}),
    "long": (media.silent_mp4, "a.mp4", LONG),
    "long_ts": (media.ts, "a.ts", LONG),
    "long_mkv": (media.mkv, "a.mkv", LONG),
    "intra": (media.silent_mp4, "a.mov", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    "open_gop": (
        media.silent_mp4,
        "a.mp4",
        {"seconds": 8, "options": {"x264-params": "open-gop=1:keyint=20:bframes=3"}},
    ),
}


@pytest.fixture(scope="session")
def kind(tmp_path_factory):
    """A file of a kind, made once."""

    @functools.cache
    def make(name: str) -> Path:
        function, file, rest = KINDS[name]
        return function(tmp_path_factory.mktemp(name) / file, **rest)

    return make


@functools.cache
def everything(path: Path) -> tuple[list[float], list[torch.Tensor]]:
    """Every frame, decoded by one thread from the beginning, with its time."""
    times, images = [], []
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            times.append(frame.time)
            images.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1))
    return times, images


def wanted(path: Path, clip) -> torch.Tensor:
    """The frames that a clip should give."""
    times, images = everything(path)
    shown = []
    for time in clip.plan.times + clip.start + clip.info.start:
        number = np.searchsorted(times, time + video.CLOCK_SLACK, side="right") - 1
        shown.append(resize_frames(images[max(0, number)][None], clip.plan.size))
    return torch.cat(shown)


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_on_screen(kind, name):
    path = kind(name)
    with open_clip(path) as clip:
        assert clip.has_video
        assert clip.plan.fps == 2
        assert not len(clip.plan.times) % 2
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        assert torch.equal(frames, wanted(path, clip))
        assert not [note for note in clip.notices if "damaged" in note or "cut" in note]


@pytest.mark.parametrize("name", ["long", "long_ts", "long_mkv", "open_gop", "intra", "gif"])
@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0.25, "min_frames": 2},
        {"fps": 7.3},
        {"start": 2.6, "fps": 3},
        {"start": 1.23, "end": 3.7},
        {"start": 2.0, "fps": 0.2, "min_frames": 2},
    ],
)
def test_skipping_and_seeking_change_no_pixel(kind, name, options, monkeypatch):
    monkeypatch.setattr(video, "_SMALL", 0)  # threads, even for these
    monkeypatch.setattr(video, "_JUMP", 0.7)
    path = kind(name)
    with open_clip(path, ClipOptions(**options)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        assert torch.equal(frames, wanted(path, clip))


def test_jumps_are_made_and_given_up_where_they_do_not_pay(kind, monkeypatch):
    monkeypatch.setattr(video, "_JUMP", 0.7)
    jumps = []
    seek = video.FrameReader._seek
    monkeypatch.setattr(video.FrameReader, "_seek", lambda *a: jumps.append(a[1]) or seek(*a))
    with open_clip(kind("long"), ClipOptions(fps=0.5)) as clip:
        clip.read()
    assert len(jumps) > 3
    jumps.clear()
    with open_clip(kind("mp4"), ClipOptions(fps=1)) as clip:  # one key frame only
        clip.read()
    assert 1 <= len(jumps) <= 2


def test_a_file_that_cannot_be_sought_in_is_read_from_its_beginning(kind, monkeypatch):
    reader = video.FrameReader
    opened = []
    original = reader._open

    class Stubborn:
        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def seek(self, *_, **__):
            raise av.error.FFmpegError(22, "no")

    def opens(self):
        original(self)
        opened.append(self)
        self._container = Stubborn(self._container)

    monkeypatch.setattr(reader, "_open", opens)
    path = kind("long")
    with open_clip(path, ClipOptions(start=5)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        assert torch.equal(frames, wanted(path, clip))
    assert len(opened) == 2


def test_chunks_are_whole_patches_and_follow_each_other(kind):
    with open_clip(kind("mp4"), chunk_seconds=1.9) as clip:
        chunks = list(clip.frame_chunks())
        assert [len(chunk.frames) for chunk in chunks] == [4, 4]
        assert [chunk.index for chunk in chunks] == [0, 1]
        assert np.allclose(np.concatenate([chunk.times for chunk in chunks]), clip.plan.times)


def test_numbers_of_frames(kind):
    path = kind("mp4")
    for options, count, fps in [
        ({}, 8, 2),
        ({"max_frames": 4}, 4, 1),
        ({"max_frames": 5}, 4, 1),
        ({"max_frames": 2}, 2, 0.5),
        ({"fps": 0.1}, 4, 1),
        ({"end": 0.5}, 4, 8),
        ({"end": 3.9}, 8, 2),
        ({"end": 2.5}, 4, 2),
        ({"fps": 0.1, "min_frames": 1}, 2, 0.5),
    ]:
        with open_clip(path, ClipOptions(**options)) as clip:
            assert len(clip.plan.times) == count, options
            assert clip.plan.fps == pytest.approx(fps)
            assert clip.plan.times[-1] < clip.duration


def test_sizes(tmp_path):
    for size in [(2, 2), (160, 2), (640, 16)]:
        path = media.silent_mp4(tmp_path / f"{size[0]}.mp4", size=size, seconds=1)
        with open_clip(path) as clip:
            frames = clip.read().frames
            assert frames.shape[-2] % 28 == frames.shape[-1] % 28 == 0
    path = media.silent_mp4(tmp_path / "thin.mp4", size=(4096, 16), seconds=0.2)
    with pytest.raises(MediaError, match="4096x16"):
        open_clip(path)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_is_applied(tmp_path, degrees, mirrored):
    path = media.rotated(tmp_path / "a.mp4", degrees, mirrored, seconds=1)
    with open_clip(path) as clip:
        frame = clip.read().frames[0]
        assert (clip.info.video.rotation, clip.info.video.mirrored) == (degrees, mirrored)
        stored = everything(path)[1][0].numpy().transpose(1, 2, 0)
    if mirrored:
        stored = stored[:, ::-1]
    turned = np.rot90(stored, -degrees // 90).transpose(2, 0, 1)
    assert turned.shape[1:] == (clip.info.video.height, clip.info.video.width)
    turned = torch.from_numpy(np.ascontiguousarray(turned))[None]
    assert torch.equal(frame, resize_frames(turned, clip.plan.size)[0])


def test_one_frame(tmp_path):
    for path in (
        media.silent_mp4(tmp_path / "a.mp4", seconds=0.04),
        media.gif(tmp_path / "a.gif", seconds=0.1),
    ):
        with open_clip(path) as clip:
            frames = clip.read().frames
            assert len(frames) == 4
            assert (frames == frames[:1]).all()


def test_full_range_colours(tmp_path):
    path = media.silent_mp4(tmp_path / "a.mp4", seconds=0.2, color_range=2)
    with open_clip(path) as clip:
        made = clip.read().frames[0].float()
    true = torch.from_numpy(media.picture(0, 160, 120)).permute(2, 0, 1)[None]
    assert (made - resize_frames(true, clip.plan.size)[0].float()).abs().mean() < 4


# Sound


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
            sound = clip.read().audio
            assert loudness(sound, 0, 1.45) < 0.001
            assert loudness(sound, 1.55, 3.9) > 0.2
            assert len(sound) == pytest.approx(4 * 16_000, abs=1_000)


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "mov", "avi"])
def test_sound_between_start_and_end(kind, name):
    with open_clip(kind(name), ClipOptions(video=False)) as clip:
        whole = clip.read().audio
    with open_clip(kind(name), ClipOptions(start=2.5, end=3.25, video=False)) as clip:
        part = clip.read().audio
    assert len(part) == 12_000
    assert difference(part, whole, 40_000) < 0.05


def test_several_tracks(tmp_path):
    path = media.several_tracks(tmp_path / "a.mp4")
    with open_clip(path) as clip:
        assert any("2 sound tracks" in note for note in clip.notices)
        assert [track.language for track in clip.info.audio] == ["eng", "deu"]
        assert pitch(clip.read().audio) == pytest.approx(440, abs=2)
    with open_clip(path, ClipOptions(audio_track=1)) as clip:
        assert pitch(clip.read().audio) == pytest.approx(1000, abs=2)
    with pytest.raises(UsageError, match="no sound track 2; it has 0, 1"):
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
        data = clip.read()
        assert data.frames.shape[0] == 0
        assert len(data.audio) == pytest.approx(48_000, abs=900)
        assert pitch(data.audio) == pytest.approx(440, abs=2)
        # Channels are averaged: the second is half as loud.
        assert float(data.audio[8_000:40_000].abs().max()) == pytest.approx(0.3, abs=0.02)
    with open_clip(path, ClipOptions(start=2.2, end=2.7)) as clip:
        part = clip.read().audio
    assert len(part) == 8_000
    assert difference(part, data.audio, 35_200) < 0.05


@pytest.mark.skipif(not hasattr(av.stream, "Disposition"), reason="PyAV 14.0 cannot write it")
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
        data = clip.read()
        assert len(data.frames) == 4
        assert len(data.audio) == pytest.approx(80_000, abs=800)
    with open_clip(path, ClipOptions(start=3)) as clip:
        assert not clip.has_video
        assert any("picture ends at 2.00 s" in note for note in clip.notices)
    path = media.mp4(tmp_path / "b.mp4", seconds=4, sounds=[{"seconds": 1}])
    with open_clip(path) as clip:
        data = clip.read()
        assert len(data.frames) == 8
        assert len(data.audio) == pytest.approx(16_000, abs=800)
    with open_clip(path, ClipOptions(start=2)) as clip:
        assert clip.has_video
        assert not clip.has_audio
        assert clip.log_mel() is None
        assert any("no sound within" in note for note in clip.notices)
    with pytest.raises(UsageError, match="before the end"):
        open_clip(path, ClipOptions(start=2, video=False))


def test_another_sound_track(tmp_path, kind):
    other = media.wav(tmp_path / "b.wav", hertz=1000)
    with open_clip(kind("silent"), ClipOptions(audio_file=other, start=1)) as clip:
        sound = clip.read().audio
        assert pitch(sound) == pytest.approx(1000, abs=2)
        assert len(sound) == 32_000
        first = clip.identity
    media.wav(other, hertz=900)
    with open_clip(kind("silent"), ClipOptions(audio_file=other, start=1)) as clip:
        assert clip.identity != first
    with pytest.raises(MediaError, match="no sound"):
        open_clip(kind("mp4"), ClipOptions(audio_file=kind("silent")))


def test_a_silent_track_is_noticed(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(16_000, np.float32), 16_000)
    with open_clip(path) as clip:
        assert clip.log_mel().shape == (128, 100)
        assert "The sound track is silent." in clip.notices


def test_log_mel_is_that_of_the_sound(kind):
    with open_clip(kind("mp4")) as clip:
        assert torch.equal(clip.log_mel(), log_mel(clip.read().audio))


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
        assert clip.read().audio is None
    with open_clip(kind("mp4"), ClipOptions(audio=False)) as clip:
        assert not clip.has_audio
        assert not clip.notices
    with open_clip(kind("mp4"), ClipOptions(video=False)) as clip:
        assert not clip.has_video
        assert list(clip.frame_chunks()) == []


# Damage


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
        data = clip.read()
        assert 2 <= len(data.frames) < 8
        assert [round(media.frame_number(f) / 12.5) for f in data.frames][:1] == [0]
        if name != "a.gif":
            assert any("cut short" in note for note in clip.notices)
            assert 0 < len(data.audio) < 16_000 * 4 * 0.9
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_sound_cut_off(tmp_path, name, capfd):
    path = media.truncated(media.wav(tmp_path / name, seconds=30))
    with open_clip(path) as clip:
        assert len(clip.read().audio) == pytest.approx(240_000, rel=0.3)
        if name in ("a.wav", "a.flac"):
            assert any("cut short" in note for note in clip.notices)
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
            data = clip.read()
            assert len(data.frames) or len(data.audio)
    except MediaError as refused:
        text = str(refused)
        assert len(text) > 40
    assert capfd.readouterr() == ("", "")


def test_a_header_that_promises_more_than_a_large_file_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("omnidrop.clip.probe._MEASURED_ANYWAY", 0)
    path = media.truncated(media.faststart_mp4(tmp_path / "a.mp4", seconds=8))
    with open_clip(path) as clip:
        assert clip.plan.fps == 2
        assert len(clip.plan.times) == 16
        data = clip.read()
        assert 6 <= len(data.frames) <= 10
        assert any("picture ends at" in note for note in clip.notices)
        assert any("sound ends at" in note for note in clip.notices)


def test_gaps_are_noticed(tmp_path):
    times = [i / 25 for i in range(25)] + [3 + i / 25 for i in range(25)]
    with open_clip(media.variable_rate(tmp_path / "a.mkv", times)) as clip:
        clip.read()
        assert any("no frames between 1.0 s and 3.0 s" in note for note in clip.notices)


def test_nothing_decodes(tmp_path):
    path = media.faststart_mp4(tmp_path / "a.mp4", sounds=[])
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    with pytest.raises(MediaError, match="cannot be decoded"):
        open_clip(path)


# Options, identity, closing


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0}, {"fps": -1}, {"fps": float("nan")}, {"fps": float("inf")}, {"start": -1},
        {"start": 3, "end": 2}, {"start": 3, "end": 3}, {"end": 0}, {"max_frames": 1},
        {"min_frames": 0}, {"max_pixels": 10}, {"min_pixels": 5_000, "max_pixels": 4_000},
        {"video": False, "audio": False}, {"audio_track": -1},
        {"audio": False, "audio_file": "a.wav"},
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant(options):
    with pytest.raises(UsageError):
        ClipOptions(**options)


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
        assert one.read().identity == one.identity
    with open_clip(path, ClipOptions(fps=1)) as other:
        assert other.identity != one.identity
    with open_clip(path, ClipOptions(start=1)) as other:
        assert other.identity != one.identity


def test_identity_of_a_large_file(kind, monkeypatch):
    monkeypatch.setattr("omnidrop.clip.decode._BLOCK", 64)
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
