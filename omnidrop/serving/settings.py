"""How the server is run: where it listens, what it may read, and what a client may ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO

from omnidrop.errors import UsageError

MIB = 1024**2

#: Port that is listened on where none is named.
PORT = 8000


@dataclass(frozen=True)
class HttpSettings:
    """Settings of `serve_http`.

    Parameters
    ----------
    host : str
        Address to listen on; the default is this machine alone.
    port : int
        0 takes a free one.
    root : Path, optional
        Folder whose files may be asked about; without one, no file of this machine may be.
    max_upload : int
        Most bytes of an uploaded clip.
    max_inline : int
        Most bytes of a clip or of audio that stands in a request itself (`data:`, `input_audio`).
    upload_space : int
        Most bytes of all uploaded clips; the longest unused make room.
    upload_seconds : float
        Uploaded clips that were not used for so long are deleted.
    queue : int
        Requests that may wait while one is answered; further ones get status 429.
    timeout : float
        Most seconds from a request to the end of its answer, waiting included.
    cache : int
        Most bytes of encoded clips that are kept for further questions.
    api_key : str, optional
        What clients must send as `Authorization: Bearer KEY`.
    origins : tuple of str
        Origins, such as "https://example.org", whose pages may use the server from a browser.
    hosts : tuple of str
        Names that clients may use for this server, besides the address that it listens on. Where
        it listens on this machine alone, requests to other names are refused: a page elsewhere
        could have its own name point here (DNS rebinding).
    log : text stream, optional
        Where errors of the server are written; by default nowhere.

    Raises
    ------
    UsageError
        If a value is not valid.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    root: Path | None = None
    max_upload: int = 1024 * MIB
    max_inline: int = 64 * MIB
    upload_space: int = 4096 * MIB
    upload_seconds: float = 6 * 3600.0
    queue: int = 16
    timeout: float = 600.0
    cache: int = 2048 * MIB
    api_key: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    log: TextIO | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise UsageError(f"port must be between 0 and 65535, not {self.port}.")
        if self.root is not None and not self.root.is_dir():
            raise UsageError(
                "This is no folder.", path=self.root, hint="Name the folder with the clips."
            )
        for name in ("max_upload", "max_inline", "upload_space"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be above 0.")
        if self.queue < 0:
            raise UsageError(f"queue must be 0 or more, not {self.queue}.")
        if self.cache < 0:
            raise UsageError(f"cache must be 0 or more, not {self.cache}.")
        if not 0 < self.timeout < 1e6:
            raise UsageError(f"timeout must be above 0, not {self.timeout:g}.")
        if self.api_key is not None and not _is_key(self.api_key):
            raise UsageError(
                "The API key is not valid.",
                hint="Use 1 to 512 printable characters without spaces.",
            )
        for origin in self.origins:
            if origin == "*" or "://" not in origin or origin.endswith("/"):
                raise UsageError(
                    f"{origin!r} is no origin.", hint="Write it like https://example.org:8080."
                )

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def _is_key(text: str) -> bool:
    return 0 < len(text) <= 512 and text.isascii() and text.isprintable() and " " not in text
