"""Runs the server: `serve_http` until it is told to stop, in any thread."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from omnidrop.errors import UsageError
from omnidrop.serving.app import make_app
from omnidrop.serving.settings import HttpSettings
from omnidrop.serving.state import State

if TYPE_CHECKING:
    from omnidrop.serving.warm import WarmModel

#: Connections that may be open at a time; further ones get status 503.
CONNECTIONS = 512

#: Seconds that answers get to end when the server stops.
GRACE = 3

#: Largest head of a request, in bytes.
HEAD = 64 * 1024

_LOGGERS = ("omnidrop.serving", "uvicorn.error")


def serve_http(
    warm: WarmModel,
    settings: HttpSettings,
    *,
    stop: threading.Event | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve a model over HTTP until `stop` is set.

    Signals are left to the caller, so that this may run beside other work in a thread of its own.

    Parameters
    ----------
    warm : WarmModel
    settings : HttpSettings
    stop : Event, optional
        Ends the server within a few seconds. Without one it runs until its process ends.
    started : callable, optional
        Receives the server's address, such as "http://127.0.0.1:8000", once it listens.

    Raises
    ------
    UsageError
        If the address cannot be listened on.
    """
    with _listening(settings) as listener, _logged(settings):
        state = State(warm, settings)
        try:
            asyncio.run(_serve(state, listener, stop, started))
        finally:
            state.close()


@contextmanager
def http_server(warm: WarmModel, settings: HttpSettings) -> Iterator[str]:
    """Serve a model over HTTP in a thread of its own during the block; yields the address.

    Parameters
    ----------
    warm : WarmModel
    settings : HttpSettings

    Raises
    ------
    UsageError
        If the address cannot be listened on.
    """
    stop, ready = threading.Event(), threading.Event()
    said: list[str] = []
    failed: list[BaseException] = []

    def listening(address: str) -> None:
        said.append(address)
        ready.set()

    def run() -> None:
        try:
            serve_http(warm, settings, stop=stop, started=listening)
        except BaseException as problem:
            failed.append(problem)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="omnidrop-http", daemon=True)
    thread.start()
    try:
        ready.wait()
        if failed:
            raise failed[0]
        yield said[0]
    finally:
        stop.set()
        thread.join(GRACE + 15)


@contextmanager
def _listening(settings: HttpSettings) -> Iterator[socket.socket]:
    """Listen on the address of the settings."""
    host = settings.host.strip("[]")
    try:
        found = socket.getaddrinfo(
            host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        listener = socket.create_server(address, family=family, backlog=256)
    except OSError as problem:
        raise UsageError(
            f"{settings.host}:{settings.port} cannot be listened on "
            f"({problem.strerror or problem}).",
            hint="Does another server listen there? Choose another port; 0 takes a free one.",
        ) from None
    with listener:
        yield listener


@contextmanager
def _logged(settings: HttpSettings) -> Iterator[None]:
    """Write errors to the settings' stream, and to no other."""
    handler: logging.Handler = (
        logging.NullHandler() if settings.log is None else logging.StreamHandler(settings.log)
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(one.propagate, one.level) for one in loggers]
    for one in loggers:
        one.addHandler(handler)
        one.propagate = False
        one.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for one, (propagate, level) in zip(loggers, before, strict=True):
            one.removeHandler(handler)
            one.propagate = propagate
            one.setLevel(level)


class _Server(uvicorn.Server):
    """Leaves signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(
    state: State,
    listener: socket.socket,
    stop: threading.Event | None,
    started: Callable[[str], None] | None,
) -> None:
    config = uvicorn.Config(
        make_app(state),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=HEAD,
    )
    server = _Server(config)
    watch = asyncio.ensure_future(_watch(server, state, listener, stop, started))
    try:
        await server.serve(sockets=[listener])
    finally:
        watch.cancel()


async def _watch(
    server: uvicorn.Server,
    state: State,
    listener: socket.socket,
    stop: threading.Event | None,
    started: Callable[[str], None] | None,
) -> None:
    """Tell when the server has started, and end it when it is to stop."""
    while not server.started:
        await asyncio.sleep(0.01)
    if started is not None:
        host, port = listener.getsockname()[:2]
        started(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    while stop is not None and not stop.is_set():
        await asyncio.sleep(0.1)
    if stop is not None:
        state.stop()
        server.should_exit = True
