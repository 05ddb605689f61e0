"""What stands before every request: who may ask, from where, how much, and what replies all say.

A page of another site can make a browser send requests here. So a request that a browser marks as
another site's is refused, unless the site is one of `HttpSettings.origins`; and so is one to a name
that this server does not have, as a page whose own name points here would send it (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import hmac
import time
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omnidrop.serving.desk import log
from omnidrop.serving.metrics import Metrics
from omnidrop.serving.problems import Refused, refusal
from omnidrop.serving.settings import MIB, HttpSettings
from omnidrop.serving.uploads import too_large

#: What every reply says, unless it says otherwise itself.
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}

#: Set in the scope of a request for media without the right API key.
UNAUTHORISED = "omnidrop.unauthorised"

#: Longest time that the body of a request may take, in seconds.
BODY_SECONDS = 60.0

#: What is read of a body that is refused, so that its sender gets to read why.
_DRAINED, _DRAIN_SECONDS = 64 * MIB, 3.0


def error_response(problem: Refused) -> Response:
    """Return an error in OpenAI's shape."""
    return JSONResponse(problem.document(), problem.status, problem.headers())


class Guard:
    """The outermost layer: checks requests, and turns errors into replies.

    Parameters
    ----------
    app : ASGI app
    settings : HttpSettings
    metrics : Metrics
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._key = settings.api_key.encode() if settings.api_key is not None else None
        self._hosts = _known_hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        status = 0
        origin = headers.get("origin")
        allowed = origin if origin in self._settings.origins else None

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _dress(MutableHeaders(scope=message), allowed)
            await send(message)

        received = False

        async def receiving() -> Message:
            nonlocal received
            message = await receive()
            received = not message.get("more_body")
            return message

        scope["app"] = self  # the router then raises what it does not know
        try:
            self._check(scope, headers, allowed)
            if scope["method"] == "OPTIONS" and allowed is not None:
                await _preflight()(scope, receiving, sending)
            else:
                await self._app(scope, receiving, sending)
        except Left:
            return
        except Exception as problem:
            told = _routed(problem, scope) or refusal(problem)
            if told.status >= 500 and not isinstance(problem, Refused | HTTPException):
                log.error("%s %s failed", scope["method"], scope["path"], exc_info=problem)
            if status:  # too late for another status: the connection ends
                raise
            if not received:
                await _drain(receive)
            await error_response(told)(scope, receiving, sending)
        finally:
            route = scope.get("route_name") or "other"
            self._metrics.count("requests_total", route=route, status=str(status or 499))

    def _check(self, scope: Scope, headers: Headers, allowed: str | None) -> None:
        host = headers.get("host", "")
        if self._hosts is not None and _name_of(host) not in self._hosts:
            raise Refused(
                403,
                f"This server is not called {host[:100]!r}. Use its address, or name the host with "
                "--allow-host.",
                code="unknown_host",
            )
        origin = headers.get("origin")
        if allowed is None:
            if origin is not None and not _same_host(origin, host):
                raise _other_site(origin)
            site = headers.get("sec-fetch-site", "none")
            if site in ("cross-site", "same-site") and scope["path"] != "/":
                raise _other_site("another site")
        if self._key is None or scope["method"] == "OPTIONS" or not _is_private(scope["path"]):
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._key)
        if kind.lower() != "bearer" or not right:
            if scope["path"].endswith("/media"):  # its own token is checked there
                scope[UNAUTHORISED] = True
                return
            raise Refused(401, "The API key is missing or wrong.", code="invalid_api_key")


def _routed(problem: Exception, scope: Scope) -> Refused | None:
    """Return what the router says, as one of our errors."""
    if not isinstance(problem, HTTPException):
        return None
    path = scope["path"][:200]
    if problem.status_code == 405:
        return Refused(405, f"{path} does not take {scope['method']}.")
    return Refused(problem.status_code, f"There is no {path!r} here.", code="not_found")


def _known_hosts(settings: HttpSettings) -> frozenset[str] | None:
    """Return the names that requests may be sent to; None for any."""
    if not settings.loopback and not settings.hosts:
        return None
    named = {name.lower().strip("[]") for name in settings.hosts}
    return frozenset({"localhost", "127.0.0.1", "::1", settings.host.lower().strip("[]"), *named})


def _name_of(host: str) -> str:
    """Return the name in a Host header, without a port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same_host(origin: str, host: str) -> bool:
    return origin.partition("://")[2].lower() == host.lower() != ""


def _is_private(path: str) -> bool:
    return path.startswith("/v1/") or path == "/v1" or path == "/metrics"


def _other_site(origin: str) -> Refused:
    return Refused(
        403,
        f"Pages of {origin[:200]} may not use this server (--allow-origin).",
        code="cross_origin",
    )


def _preflight() -> Response:
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, Range, X-File-Name",
            "Access-Control-Max-Age": "600",
        },
    )


def _dress(headers: MutableHeaders, allowed: str | None) -> None:
    for name, value in _ALWAYS.items():
        headers.setdefault(name, value)
    if allowed is not None:
        headers["Access-Control-Allow-Origin"] = allowed
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        headers.add_vary_header("Origin")


async def _drain(receive: Receive) -> None:
    """Read on for a while, so that a client that still sends gets to read the reply."""

    async def read() -> None:
        left = _DRAINED
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                return

    with suppress(TimeoutError):
        await asyncio.wait_for(read(), _DRAIN_SECONDS)


class Bodies:
    """Bodies of requests in memory, of bounded size each and together.

    Parameters
    ----------
    each, together : int
        Most bytes.
    """

    def __init__(self, each: int, together: int) -> None:
        self._each, self._left = each, together

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        """Read the JSON body of a request.

        Raises
        ------
        Refused
            If it is no JSON by its type, too large, too slow, or too much at a time.
        """
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(
                415, "Send JSON, with the header Content-Type: application/json.", code="not_json"
            )
        announced = announced_length(headers)
        if announced is not None and announced > self._each:
            raise too_large(self._each)
        until = time.monotonic() + BODY_SECONDS
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await next_message(receive, until)
                piece = message.get("body", b"")
                size += len(piece)
                self._left -= len(piece)
                if size > self._each:
                    raise too_large(self._each)
                if self._left < 0:
                    raise Refused(
                        429, "Too much is being sent at a time.", code="busy", retry_after=5
                    )
                parts.append(piece)
                if not message.get("more_body"):
                    return b"".join(parts)
        finally:
            self._left += size


class Left(Exception):
    """The client closed the connection before its request was complete."""


async def next_message(receive: Receive, until: float) -> Message:
    """Return the next part of a body.

    Raises
    ------
    Left
        If the client closed the connection.
    Refused
        Status 408 after `until`, in seconds of the monotonic clock.
    """
    try:
        message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
    except TimeoutError:
        raise Refused(408, "The body of the request did not come in time.") from None
    if message["type"] == "http.disconnect":
        raise Left
    return message


def announced_length(headers: Headers) -> int | None:
    """Return the length of a body by its header, if that says one."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
