"""Sends a clip's own bytes, whole or the part that a player asks for (`Range`)."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from omnidrop.serving.problems import Refused
from omnidrop.serving.sources import Source, read_part

#: Bytes sent at a time.
BLOCK = 1 << 18

#: Seconds that a client may take to receive one block.
PATIENCE = 60.0

#: Types by ending. Nothing else is ever said of a file: what a browser would show as a page or run
#: is no clip.
TYPES = {
    **dict.fromkeys(("mp4", "m4v"), "video/mp4"),
    **dict.fromkeys(("ts", "m2ts", "mts"), "video/mp2t"),
    **dict.fromkeys(("mpg", "mpeg"), "video/mpeg"),
    **dict.fromkeys(("ogg", "opus"), "audio/ogg"),
    "mov": "video/quicktime",
    "mkv": "video/x-matroska",
    "webm": "video/webm",
    "avi": "video/x-msvideo",
    "ogv": "video/ogg",
    "3gp": "video/3gpp",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "flac": "audio/flac",
}

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Part(NamedTuple):
    """Bytes `start` to `end` - 1."""

    start: int
    end: int


def asked_part(text: str, size: int) -> Part | None:
    """Return the part that a Range header asks for; None for the whole.

    Several ranges, and what is no range, are answered with the whole, as the standard allows.

    Raises
    ------
    ValueError
        If it lies behind the end.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if not found[1]:
        last = int(found[2])
        if not last:
            raise ValueError("behind the end")
        return Part(max(0, size - last), size)
    start = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    if start >= size:
        raise ValueError("behind the end")
    return Part(start, end) if start < end else None


async def send_clip(source: Source, scope: Scope, receive: Receive, send: Send) -> None:
    """Send an open clip, and close it.

    Raises
    ------
    Refused
        Status 416 for a part behind its end.
    """
    with source:
        headers = Headers(scope=scope)
        tag = f'"{abs(hash(source.key)):x}"'
        wanted = headers.get("range", "")
        if headers.get("if-range", tag) != tag:
            wanted = ""
        try:
            part = asked_part(wanted, source.size)
        except ValueError:
            raise Refused(416, f"The clip has {source.size} bytes.") from None
        start, end = part or Part(0, source.size)
        told = {
            "Content-Type": TYPES.get(_ending(source.name), "application/octet-stream"),
            "Content-Length": str(end - start),
            "Accept-Ranges": "bytes",
            "ETag": tag,
            "Cache-Control": "private, no-cache",
        }
        if part is not None:
            told["Content-Range"] = f"bytes {start}-{end - 1}/{source.size}"
        encoded = [(name.lower().encode(), value.encode()) for name, value in told.items()]
        status = 200 if part is None else 206
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        left = asyncio.ensure_future(_left(receive))
        try:
            while start < end and not left.done():
                size = min(BLOCK, end - start)
                piece = await to_thread.run_sync(read_part, source, start, size)
                if not piece:  # the file became shorter; the connection ends before its time
                    break
                start += len(piece)
                message = {"type": "http.response.body", "body": piece, "more_body": start < end}
                await asyncio.wait_for(send(message), PATIENCE)
            if start == end and source.size == 0:
                await send({"type": "http.response.body", "body": b""})
        finally:
            left.cancel()


async def _left(receive: Receive) -> None:
    """Wait until the client closes the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _ending(name: str) -> str:
    return Path(name).suffix.lower().removeprefix(".")


__all__ = ["TYPES", "Part", "asked_part", "send_clip"]
