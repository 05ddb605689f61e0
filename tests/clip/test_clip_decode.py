"""Frames of every kind of file, against decoding everything from the beginning."""

from __future__ import annotations

import functools
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.frames import reader as video
from omnidrop.clip.frames.packets import CLOCK_SLACK, Packets
from omnidrop.clip.patches import resize_frames
from omnidrop.clip.specs import MediaSpec
from omnidrop.errors import MediaError
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole
from tests.clip.kinds import KINDS


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
        number = np.searchsorted(times, time + CLOCK_SLACK, side="right") - 1
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
    monkeypatch.setattr(video, "_SEEK_GAP", 0.7)
    path = kind(name)
    with open_clip(path, ClipOptions(**options)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        assert torch.equal(frames, wanted(path, clip))


def test_jumps_are_made_and_given_up_where_they_do_not_pay(kind, monkeypatch):
    monkeypatch.setattr(video, "_SEEK_GAP", 0.7)
    jumps = []
    seek = video.FrameReader._seek
    monkeypatch.setattr(video.FrameReader, "_seek", lambda *a: jumps.append(a[1]) or seek(*a))
    with open_clip(kind("long"), ClipOptions(fps=0.5)) as clip:
        read_whole(clip)
    assert len(jumps) > 3
    jumps.clear()
    with open_clip(kind("mp4"), ClipOptions(fps=1)) as clip:  # one key frame only
        read_whole(clip)
    assert 1 <= len(jumps) <= 2


def test_a_file_that_cannot_be_sought_in_is_read_from_its_beginning(kind, monkeypatch):
    reader = video.FrameReader
    opened = []
    original = reader._open

    def stubborn(self, time):
        raise av.error.FFmpegError(22, "no")

    monkeypatch.setattr(Packets, "seek", stubborn)
    monkeypatch.setattr(reader, "_open", lambda self: opened.append(self) or original(self))
    path = kind("long")
    with open_clip(path, ClipOptions(start=5)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        assert torch.equal(frames, wanted(path, clip))
    assert len(opened) == 2


def test_chunks_are_whole_patches_and_follow_each_other(kind):
    with open_clip(kind("mp4"), spec=MediaSpec(chunk_seconds=1.9)) as clip:
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
            frames = read_whole(clip).frames
            assert frames.shape[-2] % 28 == frames.shape[-1] % 28 == 0
    path = media.silent_mp4(tmp_path / "thin.mp4", size=(4096, 16), seconds=0.2)
    with pytest.raises(MediaError, match="4096x16"):
        open_clip(path)


def test_frames_of_the_right_size_lie_in_order(tmp_path):
    path = media.silent_mp4(tmp_path / "a.mp4", size=(336, 280), seconds=1)
    with open_clip(path, ClipOptions(min_pixels=28 * 28, max_pixels=336 * 280)) as clip:
        assert clip.plan.size == (280, 336)
        frames = read_whole(clip).frames
        assert frames.is_contiguous()
        assert torch.equal(frames, wanted(path, clip))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_is_applied(tmp_path, degrees, mirrored):
    path = media.rotated(tmp_path / "a.mp4", degrees, mirrored, seconds=1)
    with open_clip(path) as clip:
        frame = read_whole(clip).frames[0]
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
            frames = read_whole(clip).frames
            assert len(frames) == 4
            assert (frames == frames[:1]).all()


def test_full_range_colours(tmp_path):
    path = media.silent_mp4(tmp_path / "a.mp4", seconds=0.2, color_range=2)
    with open_clip(path) as clip:
        made = read_whole(clip).frames[0].float()
    true = torch.from_numpy(media.picture(0, 160, 120)).permute(2, 0, 1)[None]
    assert (made - resize_frames(true, clip.plan.size)[0].float()).abs().mean() < 4
