"""What a file holds, and what is refused with a clear word."""

from __future__ import annotations

import io
import os
import socket
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from omnidrop.clip import container as source
from omnidrop.clip.clip import ClipOptions, open_clip
from omnidrop.clip.export import chunks, export_chunks
from omnidrop.clip.probe import probe
from omnidrop.clip.truncation import is_cut_off
from omnidrop.errors import MediaError, UsageError
from omnidrop.testing import media
from omnidrop.testing.whole_clip import read_whole


def test_a_plain_file(tmp_path):
    info = probe(media.mp4(tmp_path / "a.mp4"))
    assert info.duration == pytest.approx(4, abs=0.03)
    assert info.video.codec == "h264"
    assert (info.video.width, info.video.height, info.video.average_fps) == (160, 120, 25)
    assert (info.video.frames, info.video.bit_depth, info.video.start) == (100, 8, 0)
    (track,) = info.audio
    assert (track.codec, track.rate, track.channels, track.number) == ("aac", 44_100, 1, 0)
    assert info.notices == ()
    assert info.size_bytes == (tmp_path / "a.mp4").stat().st_size


def test_missing_durations_are_measured(tmp_path):
    for path in (
        media.mkv_without_duration(tmp_path / "a.mkv"),
        media.gif(tmp_path / "a.gif"),
        media.fragmented_mp4(tmp_path / "a.mp4"),
        media.ts(tmp_path / "a.ts"),
    ):
        info = probe(path)
        assert info.duration == pytest.approx(4, abs=0.1), path
        assert info.video.duration == pytest.approx(4, abs=0.05), path


def test_large_files_are_believed(tmp_path, monkeypatch):
    monkeypatch.setattr("omnidrop.clip.probe._ALWAYS_MEASURED", 0)
    for name in ("a.mp4", "a.mkv"):
        info = probe(media.mkv(tmp_path / name) if "mkv" in name else media.mp4(tmp_path / name))
        assert info.duration == pytest.approx(4, abs=0.03)
        assert info.video.duration == pytest.approx(4, abs=0.03)


def test_depth_and_size(tmp_path):
    assert probe(media.ten_bit(tmp_path / "a.mp4")).video.bit_depth == 10
    info = probe(media.silent_mp4(tmp_path / "b.mp4", size=(161, 121), pixels="yuv444p"))
    assert (info.video.width, info.video.height) == (161, 121)
    info = probe(media.rotated(tmp_path / "c.mp4", 90))
    assert (info.video.width, info.video.height) == (120, 160)


def test_names_in_no_encoding(tmp_path):
    path = media.mp4(tmp_path / "a.mp4")
    strange = os.fsencode(tmp_path) + b"/\xff\xfe bad \x80.mp4"
    try:
        os.rename(path, strange)
    except OSError:
        pytest.skip("this file system wants UTF-8")
    with open_clip(strange) as clip:
        assert len(read_whole(clip).frames) == 8
    with open_clip(os.fsdecode(strange)) as clip:
        assert clip.has_audio
    with pytest.raises(MediaError) as error:
        probe(strange + b"x")
    str(error.value).encode()


def refuse(path, match: str, kind=MediaError) -> None:
    with pytest.raises(kind, match=match) as caught:
        open_clip(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    assert len(text) < 600


def test_what_is_no_file(tmp_path, monkeypatch):
    refuse(tmp_path / "none.mp4", "no such file")
    refuse(tmp_path, "folder")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    refuse(empty, "empty")
    refuse(empty / "x.mp4", "no such file")
    os.mkfifo(tmp_path / "pipe.mp4")
    refuse(tmp_path / "pipe.mp4", "pipe")
    refuse("/dev/null", "device")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)
        listener.bind("s.mp4")
        refuse(tmp_path / "s.mp4", "socket")
    refuse("a\0b.mp4", "no file name")
    refuse("x" * 300, "cannot be opened")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = media.wav(tmp_path / "a.wav")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refuse(path, "may not be read")


@pytest.mark.parametrize(
    "name",
    ["http://127.0.0.1:9/a.mp4", "rtsp://127.0.0.1/a", "concat:a.ts|b.ts", "pipe:0", "file:a.mp4"],
)
def test_names_of_streams(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse(name, "not a local file")


POINTERS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{path}\n#EXT-X-ENDLIST\n",
    "b.mp4": "#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n",
    "a.ffconcat": "ffconcat version 1.0\nfile '{path}'\n",
    "a.txt": "file '{path}'\n",
    "a.sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
    "a.mpd": "<?xml version='1.0'?>\n<MPD><Period><BaseURL>{path}</BaseURL></Period></MPD>",
    "a.pls": "[playlist]\nFile1={path}\n",
    "a.asx": "<asx version='3'><entry><ref href='{path}'/></entry></asx>",
}


@pytest.mark.parametrize("name", POINTERS)
def test_files_that_point_at_others(tmp_path, name):
    target = media.ts(tmp_path / "target.ts", seconds=1)
    path = tmp_path / name
    path.write_text(POINTERS[name].format(path=target))
    refuse(path, "playlist|list of files|manifest|stream")


def test_disguised_pointers_are_not_followed(tmp_path, monkeypatch):
    """Even past our own look at its head, libav opens nothing but the file."""
    monkeypatch.setattr(source, "refuse_playlists_and_images", lambda *_: None)
    target = media.ts(tmp_path / "target.ts", seconds=1)
    for name, text in POINTERS.items():
        path = tmp_path / name
        path.write_text(text.format(path=target))
        refuse(path, "not supported|no media file")


def test_a_movie_whose_media_lies_in_another_file(tmp_path):
    whole = media.silent_mp4(tmp_path / "whole.mov", seconds=1)
    data = whole.read_bytes()
    old = data.index(b"dref") - 4
    (length,) = struct.unpack(">I", data[old : old + 4])
    place = b"file://" + os.fsencode(whole) + b"\0"
    url = struct.pack(">I4sI", 12 + len(place), b"url ", 0) + place
    new = struct.pack(">I4sII", 16 + len(url), b"dref", 0, 1) + url
    data = data[:old] + new + data[old + length :]
    grown = len(new) - length
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = data.index(box) - 4
        (size,) = struct.unpack(">I", data[at : at + 4])
        data = data[:at] + struct.pack(">I", size + grown) + data[at + 4 :]
    path = tmp_path / "pointer.mov"
    path.write_bytes(data)
    try:
        with open_clip(path) as clip:
            # The reference may be passed over, never followed.
            assert clip.info.video is not None
    except MediaError as refused:
        text = str(refused)
        assert "other files" in text


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def test_an_image_sequence_is_not_expanded(tmp_path):
    for number in range(3):
        (tmp_path / f"f{number}.png").write_bytes(png(media.picture(number, 32, 32)))
    refuse(tmp_path / "f%d.png", "no such file")
    (tmp_path / "f%d.png").write_bytes(png(media.picture(0, 32, 32)))
    refuse(tmp_path / "f%d.png", "still image")


PICTURES = {
    "PNG": png(np.zeros((8, 8, 3), np.uint8)),
    "JPEG": b"\xff\xd8\xff\xe0" + bytes(500),
    "WebP": b"RIFF\x20\0\0\0WEBPVP8 " + bytes(100),
    "BMP": b"BM" + bytes(100),
    "TIFF": b"II*\0" + bytes(100),
    "HEIF": struct.pack(">I4s4s", 20, b"ftyp", b"avif") + bytes(100),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures(tmp_path, kind):
    for name in ("a.jpg", "a.mp4"):
        (tmp_path / name).write_bytes(PICTURES[kind])
        refuse(tmp_path / name, f"image \\({kind}")


def test_what_is_no_media(tmp_path):
    (tmp_path / "a.mp4").write_text("Dear diary,\ntoday I was a video.\n")
    refuse(tmp_path / "a.mp4", "text")
    (tmp_path / "u.mp4").write_text("é" * 5001)
    refuse(tmp_path / "u.mp4", "text")
    (tmp_path / "b.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    refuse(tmp_path / "b.mp4", "no media file|not supported|neither|Nothing in")
    path = media.truncated(media.mp4(tmp_path / "c.mp4"))
    refuse(path, "damaged or cut short")
    (tmp_path / "d.zip").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 8)
    refuse(tmp_path / "d.zip", ".")


def test_no_streams(tmp_path):
    path = tmp_path / "a.mp4"
    head = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom")
    movie = struct.pack(">I4sI", 108, b"mvhd", 0) + struct.pack(">4I", 0, 0, 1000, 1000) + bytes(80)
    path.write_bytes(head + struct.pack(">I4s", 8 + len(movie), b"moov") + movie)
    refuse(path, "neither video nor audio|no media file")


def test_endings(tmp_path):
    whole = media.wav(tmp_path / "a.wav")
    assert not is_cut_off(whole, {"wav"})
    assert is_cut_off(media.truncated(whole), {"wav"})
    (tmp_path / "b.wav").write_bytes(b"RIFX")
    assert not is_cut_off(tmp_path / "b.wav", {"wav"})
    box = tmp_path / "a.mp4"
    for data, cut in [
        (struct.pack(">I4sQ", 1, b"mdat", 100) + bytes(84), False),
        (struct.pack(">I4sQ", 1, b"mdat", 100) + bytes(80), True),
        (struct.pack(">I4s", 1, b"mdat") + bytes(4), True),
        (struct.pack(">I4s", 0, b"mdat") + bytes(4), False),
        (struct.pack(">I4s", 2, b"mdat") + bytes(4), False),
        (struct.pack(">I4s", 12, b"free") + bytes(4), False),
        (struct.pack(">I4s", 12, b"free") + bytes(3), True),
    ]:
        box.write_bytes(data)
        assert is_cut_off(box, {"mov"}) is cut
    assert not is_cut_off(box, {"matroska"})


# Export


def test_export(tmp_path):
    path = media.mp4(tmp_path / "a.mp4", seconds=5)
    with open_clip(path) as clip:
        listed = chunks(clip)
        assert [(c.start, c.end) for c in listed][:2] == [(0, 2), (2, 4)]
        assert listed[-1].end == pytest.approx(5, abs=0.03)
        written = export_chunks(clip, tmp_path / "out" / "deep")
        frames = read_whole(clip).frames
    names = [file.name for file in written]
    assert names[0] == "chunk-0000-frame-00.png"
    assert sum(name.endswith(".png") for name in names) == len(frames) == 10
    assert sum(name.endswith(".wav") for name in names) == 3
    assert (np.asarray(Image.open(written[0])) == frames[0].permute(1, 2, 0).numpy()).all()
    with av.open(str(written[0])) as picture:  # another reader agrees
        image = next(picture.decode(video=0)).to_ndarray(format="rgb24")
        assert (image == frames[0].permute(1, 2, 0).numpy()).all()
    with open_clip(written[names.index("chunk-0000.wav")]) as sound:
        assert sound.duration == pytest.approx(2)
    with open_clip(path) as clip, pytest.raises(UsageError, match="not overwritten"):
        export_chunks(clip, tmp_path / "out" / "deep")
    with open_clip(path) as clip, pytest.raises(UsageError, match=r"already|written"):
        export_chunks(clip, path)


def test_export_of_sound_alone(tmp_path):
    with open_clip(media.wav(tmp_path / "a.wav"), ClipOptions(end=2.5)) as clip:
        assert [(c.start, c.end) for c in chunks(clip)] == [(0, 2), (2, 2.5)]
        assert len(export_chunks(clip, tmp_path / "out")) == 2


def test_export_to_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with open_clip(media.wav(tmp_path / "a.wav")) as clip, pytest.raises(UsageError):
        export_chunks(clip, tmp_path / "file" / "below")


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "PQ"), ("arib-std-b67", "HLG")])
def test_hdr_is_named(tmp_path, transfer, name):
    colours = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    path = media.ten_bit(tmp_path / "a.mp4", seconds=0.4, options={"x264-params": colours})
    with open_clip(path) as clip:
        assert [note for note in clip.notices if f"HDR ({name})" in note]
        assert len(read_whole(clip).frames) == 4
