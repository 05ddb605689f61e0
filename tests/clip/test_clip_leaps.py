"""Sparse samples: leaping to key frames and seeking give the frames that full decoding gives."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.frames import reader as video
from omnidrop.clip.frames.packets import Damage
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole
from tests.clip.test_clip_decode import wanted
from tests.some import every

QUICK = {"preset": "veryfast", "g": "15"}


def without_packets(path: Path, number: int) -> Path:
    """Rewrite a clip without every ``number``-th of its key frames but the first."""
    target = path.with_name("less.mp4")
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        keys = -1
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            keys += packet.is_keyframe
            if packet.is_keyframe and keys and keys % number == 0:
                continue
            packet.stream = copy
            out.mux(packet)
    return target


def make(name: str, folder: Path) -> Path:
    """A clip of about nine seconds of the named kind."""
    rest = {"seconds": 9, "options": QUICK}
    if name == "b_frames":
        return media.silent_mp4(folder / "a.mp4", **rest)
    if name == "open_gop":
        options = {"x264-params": "open-gop=1:keyint=20:min-keyint=20:bframes=3:scenecut=0"}
        return media.silent_mp4(folder / "a.mp4", seconds=9, options=options)
    if name == "vfr":
        rng = np.random.default_rng(4)
        times = np.cumsum(rng.choice([0.02, 0.04, 0.1, 0.31], 120)).round(3) - 0.02
        return media.variable_rate(folder / "a.mkv", times=times.tolist(), options=QUICK)
    if name == "odd_start":
        return media.ts(folder / "a.ts", **rest)
    if name == "missing_keys":
        return without_packets(media.silent_mp4(folder / "a.mp4", **rest), 3)
    if name == "one_key":
        return media.silent_mp4(folder / "a.mp4", seconds=9, options={"g": "999"})
    if name == "intra_refresh":
        options = {"x264-params": "intra-refresh=1:keyint=25:bframes=0"}
        return media.silent_mp4(folder / "a.mp4", seconds=9, options=options)
    if name == "av1":
        options = {"preset": "12", "svtav1-params": "keyint=25"}
        try:
            return media.silent_mp4(folder / "a.mp4", seconds=6, codec="libsvtav1", options=options)
        except ValueError:
            pytest.skip("this build of PyAV encodes no AV1")
    if name == "vp9":
        return media.webm(folder / "a.webm", seconds=6, options={"g": "20", "cpu-used": "8"})
    return media.write(folder / "a.avi", codec="mpeg4", seconds=9, options={"bf": "2", "g": "18"})


NAMES = [
    "b_frames", "open_gop", "vfr", "odd_start", "missing_keys", "one_key", "intra_refresh", "vp9",
    "mpeg4", "av1",
]  # fmt: skip


@pytest.fixture(scope="module", params=NAMES)
def clip_file(request, tmp_path_factory):
    return request.param, make(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("jump", every(2, [0.7, 3.0]))
@pytest.mark.parametrize(
    "options",
    [
        {"fps": 1.7},
        {"fps": 0.6},
        {"fps": 1.1, "start": 2.3},
        {"fps": 0.3, "start": 1.9, "min_frames": 2},
    ],
)
def test_sparse_frames_are_those_of_full_decoding(clip_file, options, jump, monkeypatch):
    monkeypatch.setattr(video, "_SEEK_GAP", jump)
    with open_clip(clip_file[1], ClipOptions(**options)) as clip:
        frames = torch.cat([chunk.frames for chunk in clip.frame_chunks()])
        expected = wanted(clip_file[1], clip)
        same = [torch.equal(*pair) for pair in zip(frames, expected, strict=True)]
        if clip_file[0] == "missing_keys":
            # Next to what is missing, the decoder's own output is out of order, or made up.
            times = (clip.plan.times + clip.start) % 1.8
            same = [ok for ok, time in zip(same, times, strict=True) if 0.6 <= time < 1.7]
        assert same
        assert all(same)
        assert not [note for note in clip.notices if "There are no frames" in note]


def test_frames_between_a_sample_and_a_key_frame_are_not_decoded(tmp_path, monkeypatch):
    path = media.silent_mp4(tmp_path / "a.mp4", seconds=8, options=QUICK)
    sent = []
    decode = video.FrameReader._decode
    monkeypatch.setattr(video.FrameReader, "_decode", lambda *a: sent.append(a[1]) or decode(*a))
    with open_clip(path, ClipOptions(fps=0.5)) as clip:
        frames = read_whole(clip).frames
        assert torch.equal(frames, wanted(path, clip))
    assert len([packet for packet in sent if packet is not None]) < 100  # of 200


def test_key_frames_that_are_no_whole_pictures_are_found_out(tmp_path):
    path = make("intra_refresh", tmp_path)
    with av.open(str(path)) as container:
        keys = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.is_keyframe]
    assert len(keys) > 3
    reader = None
    with open_clip(path, ClipOptions(fps=1.0)) as clip:
        reader = video.FrameReader(path, clip.info.video, Damage())
        images = [image for _, image in reader.frames([0.0, keys[2] + 0.04])]
        assert reader.sequential_only
        assert len(images) == 2
