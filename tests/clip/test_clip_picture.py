"""Pictures as a player shows them: shape of pixels, HDR, fields, sizes that change, raw MJPEG."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.frames.picture import fitted, hdr_divisor, tone_mapped, without_combs
from omnidrop.clip.patches import resize_frames
from omnidrop.errors import MediaError
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole


def shape(path, **options) -> tuple[float, bool]:
    """Width over height of the frames, which are whole tokens, and whether a notice tells of it."""
    with open_clip(path, ClipOptions(**options)) as clip:
        height, width = read_whole(clip).frames.shape[-2:]
        return width / height, any("not square" in note for note in clip.notices)


@pytest.mark.parametrize(
    ("size", "aspect", "shown"),
    [((480, 540), "2/1", 16 / 9), ((360, 240), "32/27", 16 / 9), ((360, 288), "16/15", 4 / 3),
     ((640, 240), "1/2", 4 / 3)],
)  # fmt: skip
def test_pixels_that_are_not_square(tmp_path, size, aspect, shown):
    options = {"x264-params": f"sar={aspect}"}
    path = media.silent_mp4(tmp_path / "a.mp4", size=size, seconds=1, options=options)
    assert shape(path) == (pytest.approx(shown, rel=0.08), True)
    square = shape(path, square_pixels=True)
    assert square == (pytest.approx(size[0] / size[1], rel=0.08), False)
    with open_clip(path) as clip:
        stored = clip.info.video.stored_size
        assert stored == (size[1], size[0])
        assert clip.info.video.width / clip.info.video.height == pytest.approx(shown, rel=0.002)
        assert min(clip.info.video.height / stored[0], clip.info.video.width / stored[1]) == 1


def test_square_pixels_are_left_alone(tmp_path):
    path = media.silent_mp4(tmp_path / "a.mp4", seconds=1)
    assert shape(path) == shape(path, square_pixels=True) == (pytest.approx(4 / 3, 0.06), False)


def test_turned_pixels_that_are_not_square(tmp_path):
    options = {"x264-params": "sar=2/1"}
    path = media.rotated(tmp_path / "a.mp4", 90, size=(160, 180), seconds=1, options=options)
    with open_clip(path) as clip:
        assert (clip.info.video.width, clip.info.video.height) == (180, 320)
        assert clip.info.video.stored_size == (160, 180)


@pytest.mark.parametrize(
    ("transfer", "white", "grey"), [("smpte2084", 0.5807, 0.38), ("arib-std-b67", 0.75, 0.38)]
)
def test_diffuse_white_of_hdr_is_white(tmp_path, transfer, white, grey):
    path = media.hdr(tmp_path / "a.mp4", transfer, (0.0, grey, white, 1.0))
    with open_clip(path) as clip:
        frame = read_whole(clip).frames[0].float()
        assert any("tones are mapped" in note for note in clip.notices)
    steps = [frame[:, 20:-20, round((n + 0.5) * frame.shape[-1] / 4)].mean(-1) for n in range(4)]
    for step in steps:  # grey stays grey
        assert float(step.max() - step.min()) <= 2
    black, mid, bright, full = (float(step.mean()) for step in steps)
    assert black < 6
    assert 60 < mid < 140
    assert 200 <= bright <= 235
    assert full >= 250


@pytest.mark.parametrize("transfer", ["PQ", "HLG"])
def test_tones_rise_with_the_signal(transfer):
    ramp = np.repeat(np.arange(0, 65536, 64, dtype=np.uint16)[None, :, None], 3, axis=2)
    mapped = tone_mapped(ramp, transfer)
    assert mapped.dtype == np.uint8
    assert (np.diff(mapped.astype(int), axis=1) >= 0).all()
    assert (mapped[0, 0] == 0).all()
    assert (mapped[0, -1] == 255).all()
    assert np.abs(np.diff(mapped[..., 1].astype(int), axis=1)).max() < 12


def test_saturated_colours_stay_what_they_are():
    red = np.array([[[40_000, 12_000, 9_000]]], dtype=np.uint16)
    r, g, b = tone_mapped(red, "PQ")[0, 0].astype(int)
    assert r > 200
    assert g < 80
    assert b < 80
    assert hdr_divisor(1920, 1080) == 1
    assert hdr_divisor(3840, 2160) == 2


def test_fields_are_taken_apart(tmp_path):
    path = media.interlaced(tmp_path / "a.ts")
    options = ClipOptions(min_pixels=28 * 28, max_pixels=336 * 252)
    with open_clip(path, options) as clip:
        frames = read_whole(clip).frames.float().mean(1)
        assert any("interlaced" in note for note in clip.notices)
    moving = frames[:, :190]
    combs = (2 * moving[:, 1:-1] - moving[:, :-2] - moving[:, 2:]).abs().mean()
    assert combs < 1.5
    assert float(moving.max()) > 190


def test_combs_go_and_details_stay():
    rng = np.random.default_rng(0)
    smooth = np.broadcast_to(rng.integers(0, 256, (1, 64, 3), dtype=np.uint8), (48, 64, 3)).copy()
    smooth[21] = 255 - smooth[21]  # one thin line
    for image in (smooth, smooth.astype(np.uint16) * 257):
        assert (without_combs(image) == image).all()
    woven = np.zeros((48, 64, 3), dtype=np.uint8)
    woven[1::2, 10:30] = 200
    assert not without_combs(woven).any()
    assert (without_combs(woven[:4]) == woven[:4]).all()


def test_a_size_that_changes_is_fitted(tmp_path):
    wide = media.ts(tmp_path / "1.ts", size=(320, 240), seconds=3, sounds=[])
    tall = media.ts(tmp_path / "2.ts", size=(240, 320), seconds=3, sounds=[], first=75)
    with open_clip(media.joined(tmp_path / "a.ts", wide, tall)) as clip:
        frames = read_whole(clip).frames
        assert clip.duration == pytest.approx(6, abs=0.1)
    height, width = frames.shape[-2:]
    assert width > height
    assert media.frame_number(frames[2]) == 25
    last = frames[-2]
    bar = round(width * 70 / 320)
    assert not last[:, :, : bar - 3].any()
    assert not last[:, :, 3 - bar :].any()
    assert media.frame_number(last[:, :, bar:-bar]) == 125


def test_fitting():
    image = torch.full((1, 3, 90, 160), 255, dtype=torch.uint8)
    assert torch.equal(fitted(image, (56, 112), (90, 160)), resize_frames(image, (56, 112)))
    assert bool((fitted(image, (56, 84), (180, 320)) == 255).all())  # another size, one shape
    boxed = fitted(image, (84, 84), (160, 160))[0, 0]
    rows = (boxed == 255).all(1).nonzero().flatten()
    assert (len(rows), int(rows[0])) == (47, 18)
    assert not boxed[:18].any()


def test_motion_jpeg_without_a_container(tmp_path):
    raw = {"codec": "mjpeg", "pixels": "yuvj420p", "container": "mjpeg", "options": {"q": "2"}}
    path = media.write(tmp_path / "a.mjpeg", **raw)
    data = path.read_bytes()
    for name in ("a.mjpeg", "a.jpg", "a"):
        other = tmp_path / name
        other.write_bytes(data)
        with open_clip(other) as clip:
            assert clip.duration == pytest.approx(4, abs=0.05)
            assert any("stores no times" in note for note in clip.notices)
            shown = [media.frame_number(frame) for frame in read_whole(clip).frames]
        assert np.abs(np.array(shown) - np.arange(8) * 12.5).max() <= 1.5
    one = data[: data.index(b"\xff\xd9") + 2]
    for photo in (one, one + one, one * 3):  # with a depth map, with another in HDR
        (tmp_path / "b.jpg").write_bytes(photo)
        with pytest.raises(MediaError, match="still image"):
            open_clip(tmp_path / "b.jpg")
