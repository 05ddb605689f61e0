"""The clips that requests may ask about, by URL or id."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from typing import Any

from omnidrop.clip.probe import probe
from omnidrop.errors import OmniDropError
from omnidrop.serving import uploads as inline
from omnidrop.serving.chat import Sound
from omnidrop.serving.problems import Refused, refusal, wrong
from omnidrop.serving.settings import HttpSettings
from omnidrop.serving.sources import Root, Source, file_name
from omnidrop.serving.uploads import MARK, Upload, Uploads

#: What the id of a file below the root begins with; its name follows in base64.
ROOT_MARK = f"{MARK}file-"

#: Formats that `input_audio` may name, as endings of a file.
SOUNDS = ("wav", "mp3", "flac", "ogg", "opus", "m4a", "aac", "webm", "mp4")


@dataclass(frozen=True)
class Facts:
    """What a client is told of a clip: sizes in pixels, duration in seconds."""

    duration: float | None
    width: int | None
    height: int | None
    fps: float | None
    audio: bool
    format: str


class Clips:
    """Files below the root, uploads, and clips that stand in requests.

    Parameters
    ----------
    settings : HttpSettings
    """

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self.uploads = Uploads(settings.upload_space, settings.upload_seconds)
        try:
            folder = settings.root
            self.root = None if folder is None else Root(folder, self.uploads.links)
        except BaseException:
            self.uploads.close()
            raise

    def close(self) -> None:
        """Delete the uploads."""
        if self.root is not None:
            self.root.close()
        self.uploads.close()

    def open_url(self, url: str) -> Source:
        """Open the clip that a URL, a path below the root or an id names.

        Raises
        ------
        Refused
        """
        if url[:5].lower() == "data:":
            limit = self._settings.max_inline
            upload = inline.from_data_url(self.uploads, url, limit, "video_url")
            return self.uploads.open(upload)
        if url.startswith(MARK):
            return self.open_id(url)
        return self._open_file(file_name(url))

    def open_id(self, clip: str) -> Source:
        """Open a clip by the id that a listing or an upload gave.

        Raises
        ------
        Refused
        """
        if clip.startswith(ROOT_MARK):
            return self._open_file(_name_in(clip))
        return self.uploads.open(self.uploads.find(clip))

    def open_sound(self, sound: Sound) -> Source:
        """Open audio that stands in a request.

        Raises
        ------
        Refused
        """
        if sound.format.lower() not in SOUNDS:
            raise wrong(
                f"Audio of format {sound.format[:32]!r} is not supported; use one of "
                f"{', '.join(SOUNDS)}.",
                "input_audio.format",
            )
        data = sound.data
        if data[:5].lower() == "data:":
            raise wrong("input_audio.data is base64 alone, without data:.", "input_audio.data")
        name = f"audio.{sound.format.lower()}"
        limit = self._settings.max_inline
        upload = inline.from_text(self.uploads, data, name, limit, "input_audio.data")
        return self.uploads.open(upload)

    def listed(self) -> tuple[list[dict[str, str]], bool]:
        """Return ids and names of the uploads and of the files below the root.

        The second value says whether files were left out.
        """
        found = [
            {"id": one.id, "name": one.name, "from": "upload"} for one in self.uploads.listed()
        ]
        names, more = self.root.names() if self.root is not None else ([], False)
        found += [
            {
                "id": id_of(name),
                "name": name.encode("utf-8", "backslashreplace").decode(),
                "from": "root",
            }
            for name in names
        ]
        return found, more

    def facts(self, source: Source) -> Facts:
        """Probe a clip.

        Raises
        ------
        Refused
            If it is none.
        """
        try:
            info = probe(source.path)
        except OmniDropError as problem:
            raise refusal(problem, {str(source.path): source.name}) from None
        video = info.video
        finite = info.duration == info.duration and info.duration < 1e12
        return Facts(
            duration=info.duration if finite else None,
            width=video.width if video is not None else None,
            height=video.height if video is not None else None,
            fps=video.average_fps if video is not None else None,
            audio=bool(info.audio),
            format=info.format,
        )

    def check(self, upload: Upload) -> Facts:
        """Probe an upload; one that is no clip is deleted."""
        try:
            with self.uploads.open(upload) as source:
                return self.facts(source)
        except Refused:
            self.uploads.drop(upload.id)
            raise

    def _open_file(self, name: str) -> Source:
        if self.root is None:
            raise Refused(
                403,
                "This server reads no files (it was started without --root). Upload the clip "
                "(POST /v1/clips) or send it as a data: URL.",
                param="video_url",
                code="no_root",
            )
        return self.root.open(name)


def id_of(name: str) -> str:
    """Return the id of a file below the root."""
    return ROOT_MARK + base64.urlsafe_b64encode(os.fsencode(name)).decode().rstrip("=")


def _name_in(clip: str) -> str:
    text = clip.removeprefix(ROOT_MARK)
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        return os.fsdecode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise inline.no_such_clip(clip) from None


def described(clip: str, name: str, facts: Facts) -> dict[str, Any]:
    """Return a clip as the API tells it."""
    return {
        "id": clip,
        "object": "clip",
        "name": name.encode("utf-8", "backslashreplace").decode(),
        "duration": facts.duration,
        "width": facts.width,
        "height": facts.height,
        "fps": facts.fps,
        "audio": facts.audio,
    }
