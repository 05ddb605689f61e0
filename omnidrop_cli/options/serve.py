"""Options of `omnidrop serve` alone: how long the model is kept, and where it is served."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from omnidrop.errors import UsageError, printable
from omnidrop_cli.options.groups import option
from omnidrop_cli.options.parsing import parse_long_duration

#: Value of --keep-alive with which the model is never dropped.
ALWAYS = "always"


def parse_keep_alive(text: Any) -> float:
    """Return the seconds of `90`, `5m` or `2h`; infinity for `always`."""
    if isinstance(text, str) and text.strip().lower() == ALWAYS:
        return math.inf
    return parse_long_duration(text)


def parse_address(text: Any) -> str:
    """Return HOST:PORT if it is one."""
    host, colon, port = str(text).strip().rpartition(":")
    if not (colon and port.isdecimal() and port.isascii() and int(port) < 2**16):
        raise UsageError(
            f"{printable(text)!r} is not HOST:PORT.", hint="Write it like 127.0.0.1:8000."
        )
    return f"{host or '127.0.0.1'}:{int(port)}"


@dataclass(frozen=True)
class ServeFlags:
    """Where a warm model is served, and how long it is kept."""

    keep_alive: Annotated[
        float,
        option(
            "--keep-alive",
            panel="Serve",
            metavar="TIME",
            parser=parse_keep_alive,
            help="Drop the model from memory when nobody has used it for this time, like 90s, 5m "
            "or 2h; the next call loads it again. 0 drops it after every call, always never (5m).",
        ),
    ] = 300.0
    socket: Annotated[
        Path | None,
        option(
            "--socket",
            panel="Serve",
            metavar="FILE",
            help="Where commands find it, in a folder of yours alone; commands look there if "
            "OMNIDROP_SOCKET names it too.",
        ),
    ] = None
    http: Annotated[
        str | None,
        option(
            "--http",
            panel="Serve",
            metavar="HOST:PORT",
            parser=parse_address,
            help="Answer over HTTP as well; needs the extra omnidrop[serve].",
        ),
    ] = None
    status: Annotated[
        bool, option("--status", panel="Serve", help="Say what is being served, and end.")
    ] = False
    stop: Annotated[bool, option("--stop", panel="Serve", help="End the process that serves.")] = (
        False
    )

    def __post_init__(self) -> None:
        if self.status and self.stop:
            raise UsageError("--status and --stop exclude each other.", hint="Give one of them.")

    @property
    def seconds(self) -> float | None:
        """Seconds without use after which the model is dropped; None for never."""
        return None if math.isinf(self.keep_alive) else self.keep_alive
