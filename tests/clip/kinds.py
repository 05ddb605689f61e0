"""Kinds of video file: how each is made, and under which name."""

from __future__ import annotations

from omnidrop.testing import media

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
