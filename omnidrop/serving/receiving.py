"""Receives an uploaded clip piece by piece: as the body itself, or as a file of a form."""

from __future__ import annotations

import time
from collections.abc import Callable
from urllib.parse import unquote

from anyio import to_thread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive

from omnidrop.serving.guard import announced_length, next_message
from omnidrop.serving.problems import Refused, wrong
from omnidrop.serving.uploads import Draft, too_large

#: Seconds in which the next piece must come.
PATIENCE = 60.0

#: Bytes that are written at a time.
BLOCK = 1 << 20

#: What a form may hold besides the clip, in bytes.
FORM = 1 << 20


class Form:
    """The first file of a form, found while the form is read.

    Parameters
    ----------
    boundary : bytes
    write : callable
        Receives the file's bytes.

    Attributes
    ----------
    name : str or None
        Of the file; None until there is one.
    ended : bool
        Whether the form is complete.
    """

    def __init__(self, boundary: bytes, write: Callable[[bytes], None]) -> None:
        self.name: str | None = None
        self.ended = False
        self._write = write
        self._field, self._value = b"", b""
        self._disposition = b""
        self._inside = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_begin": self._no_header,
                "on_header_field": self._add_field,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._headers,
                "on_part_data": self._data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, piece: bytes) -> None:
        """Read on.

        Raises
        ------
        Refused
            If it is no form.
        """
        try:
            self._parser.write(piece)
        except MultipartParseError:
            raise wrong("The body is not a valid form (multipart/form-data).") from None

    def _begin(self) -> None:
        self._disposition = b""

    def _no_header(self) -> None:
        self._field, self._value = b"", b""

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value

    def _headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"filename" in options:
            if self.name is not None:
                raise wrong("Upload one clip at a time.")
            self.name = options[b"filename"].decode("utf-8", "replace")
            self._inside = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._write(data[start:end])

    def _end_part(self) -> None:
        self._inside = False

    def _end(self) -> None:
        self.ended = True


async def receive_clip(headers: Headers, receive: Receive, draft: Draft, limit: int) -> str:
    """Receive a clip into a draft; return the name that the client gave it.

    The name of a clip that is the body itself stands in the header X-File-Name, percent-encoded.

    Raises
    ------
    Refused
        If it is too large, too slow, or no form though its type says so.
    Left
        If the client closed the connection.
    """
    kind, options = parse_options_header(headers.get("content-type", ""))
    announced = announced_length(headers)
    is_form = kind == b"multipart/form-data"
    if announced is not None and announced > limit + FORM * is_form:
        raise too_large(limit)
    form: Form | None = None
    if is_form:
        if not options.get(b"boundary"):
            raise wrong("The form names no boundary.")
        form = Form(options[b"boundary"], draft.write)
    take = draft.write if form is None else form.feed
    waiting, size = bytearray(), 0
    while True:
        message = await next_message(receive, time.monotonic() + PATIENCE)
        waiting += message.get("body", b"")
        size += len(message.get("body", b""))
        if size > limit + FORM * is_form:
            raise too_large(limit)
        more = message.get("more_body", False)
        if len(waiting) >= BLOCK or not more:
            block, waiting = bytes(waiting), bytearray()
            await to_thread.run_sync(take, block)
        if not more:
            break
    if form is None:
        return unquote(headers.get("x-file-name", "") or "clip", errors="replace")
    if not form.ended or form.name is None:
        raise Refused(400, "The form holds no complete file; send the clip as its first one.")
    return form.name
