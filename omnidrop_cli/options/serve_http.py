"""Options of `omnidrop serve --http`: what may be read, who may ask, and how much."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

from omnidrop.errors import UsageError
from omnidrop.serving.settings import HttpSettings
from omnidrop_cli.options.groups import build, option
from omnidrop_cli.options.parsing import parse_long_duration, parse_size

PANEL = "HTTP"

#: Environment variable that holds an API key itself.
API_KEY = "OMNIDROP_API_KEY"


@dataclass(frozen=True)
class HttpFlags:
    """How a model is served over HTTP."""

    root: Annotated[
        Path | None,
        option(
            "--root",
            panel=PANEL,
            metavar="FOLDER",
            help="Let requests ask about the files in this folder, and no others of this machine. "
            "Without it they upload clips or send them along.",
        ),
    ] = HttpSettings.root
    api_key_file: Annotated[
        Path | None,
        option(
            "--api-key-file",
            panel=PANEL,
            metavar="FILE",
            help=f"Ask clients for the key in this file, as {API_KEY} does for the key itself.",
        ),
    ] = None
    origins: Annotated[
        list[str] | None,
        option(
            "--allow-origin",
            panel=PANEL,
            metavar="ORIGIN",
            repeatable=True,
            help="Let pages of this site use the server from a browser, like https://example.org; "
            "repeatable. Without it no other site may.",
        ),
    ] = None
    hosts: Annotated[
        list[str] | None,
        option(
            "--allow-host",
            panel=PANEL,
            metavar="NAME",
            repeatable=True,
            help="A further name that clients call this machine by; repeatable.",
        ),
    ] = None
    max_upload: Annotated[
        float,
        option(
            "--max-upload",
            panel=PANEL,
            metavar="SIZE",
            parser=parse_size,
            help="Largest clip that may be uploaded (1GiB).",
        ),
    ] = HttpSettings.max_upload
    queue: Annotated[
        int,
        option(
            "--queue",
            panel=PANEL,
            metavar="N",
            help=f"Requests that may wait while one is answered ({HttpSettings.queue}); others are "
            "told to come back later.",
        ),
    ] = HttpSettings.queue
    timeout: Annotated[
        float,
        option(
            "--request-timeout",
            panel=PANEL,
            metavar="TIME",
            parser=parse_long_duration,
            help="Most time that a request may take, waiting included (10m).",
        ),
    ] = HttpSettings.timeout
    cache: Annotated[
        float,
        option(
            "--clip-cache",
            panel=PANEL,
            metavar="SIZE",
            parser=parse_size,
            help="Memory for encoded clips, which further questions about them use (2GiB).",
        ),
    ] = HttpSettings.cache

    def __post_init__(self) -> None:
        self._settings("127.0.0.1", 0, None, None)

    def settings(self, address: str, log: TextIO | None = None) -> HttpSettings:
        """Return how the server is run.

        Parameters
        ----------
        address : str
            HOST:PORT.
        log : text stream, optional
            Where errors of the server go.

        Raises
        ------
        UsageError
            If the key cannot be read, or is none.
        """
        host, _, port = address.rpartition(":")
        return self._settings(host, int(port), self._key(), log)

    def _settings(
        self, host: str, port: int, api_key: str | None, log: TextIO | None
    ) -> HttpSettings:
        return build(
            HttpSettings,
            HttpFlags,
            host=host,
            port=port,
            root=self.root.expanduser().resolve() if self.root is not None else None,
            max_upload=int(self.max_upload),
            upload_space=max(HttpSettings.upload_space, int(self.max_upload)),
            queue=self.queue,
            timeout=self.timeout,
            cache=int(self.cache),
            api_key=api_key,
            origins=tuple(self.origins or ()),
            hosts=tuple(self.hosts or ()),
            log=log,
        )

    def _key(self) -> str | None:
        if self.api_key_file is None:
            return os.environ.get(API_KEY) or None
        try:
            with self.api_key_file.expanduser().open(encoding="utf-8") as file:
                return file.read(1024).strip()
        except (OSError, ValueError) as problem:
            raise UsageError(
                f"The API key cannot be read ({problem}).",
                path=self.api_key_file,
                hint="Write the key into a file of its own, on one line.",
            ) from None


__all__ = ["API_KEY", "HttpFlags"]
