"""Which media files a web browser plays, and as what media type."""

from __future__ import annotations

from omnidrop.clip.container import open_file
from omnidrop.clip.probe import MediaInfo

__all__ = ["media_type"]

_H264_PIXELS = {"yuv420p", "yuvj420p"}  # other kinds of H.264 are not decoded by browsers
_MP4_AUDIO = {"aac", "mp3", "mp3float", "opus", "flac"}
_WEBM_VIDEO = {"vp8", "vp9", "av1"}
_WEBM_AUDIO = {"opus", "vorbis"}
_PCM = {"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le"}
#: Formats of audio alone: libav's name -> media type, and the codecs that browsers decode in it.
_AUDIO = {
    "mp3": ("audio/mpeg", {"mp3", "mp3float"}),
    "wav": ("audio/wav", _PCM),
    "flac": ("audio/flac", {"flac"}),
    "aac": ("audio/aac", {"aac"}),
    "ogg": ("audio/ogg", _WEBM_AUDIO | {"flac"}),
}
_EBML_HEAD = 64  # bytes that hold the document type of a Matroska file


def media_type(info: MediaInfo) -> str | None:
    """Return the media type that a browser plays a file as; None where it does not.

    Parameters
    ----------
    info : MediaInfo
        As `probe` returns it.

    Returns
    -------
    str or None
        Like "video/mp4". None for containers and codecs that not all current browsers play:
        Matroska other than WebM, AVI, MPEG-TS, HEVC, 10-bit H.264, PCM in QuickTime.

    Notes
    -----
    MDN, "Media container formats" and "Web video codec guide".
    """
    formats = set(info.format.split(","))
    video = _codec(info.video.codec) if info.video is not None else None
    audio = _codec(info.audio[0].codec) if info.audio else None
    kind = "audio" if video is None else "video"
    if "mov" in formats:
        playable = video in (None, "vp9", "av1") or (
            video == "h264" and info.video is not None and info.video.pixel_format in _H264_PIXELS
        )
        return f"{kind}/mp4" if playable and audio in {None, *_MP4_AUDIO} else None
    if "matroska" in formats:
        playable = video in {None, *_WEBM_VIDEO} and audio in {None, *_WEBM_AUDIO}
        return f"{kind}/webm" if playable and _is_webm(info) else None
    for name in formats & _AUDIO.keys():
        media, codecs = _AUDIO[name]
        return media if video is None and audio in codecs else None
    return None


def _codec(name: str) -> str:
    """Return the codec of a decoder: `vp9` of `libvpx-vp9`."""
    known = {"libdav1d": "av1", "libaom-av1": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
    return known.get(name, name.removeprefix("lib"))


def _is_webm(info: MediaInfo) -> bool:
    with open_file(info.path) as handle:
        return b"webm" in handle.read(_EBML_HEAD)
