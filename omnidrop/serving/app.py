"""The ASGI app: routes, and what they answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

import omnidrop
from omnidrop.pruning.registry import describe, methods
from omnidrop.serving.clip_routes import ClipCost, ClipList, ClipMedia, OneClip, Tokens
from omnidrop.serving.completions import ChatCompletions
from omnidrop.serving.endpoint import Endpoint
from omnidrop.serving.guard import Guard
from omnidrop.serving.state import State

#: The page that is served at `/`, if it is installed.
PAGE = Path(__file__).parent / "page"

#: What the page may load: its own files, and clips as the browser has them.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def make_app(state: State, page: Path = PAGE) -> ASGIApp:
    """Return the app of a server.

    Parameters
    ----------
    state : State
    page : Path
        Folder of a static page; it may be absent.
    """
    tokens = Tokens()
    routes: list[BaseRoute] = [
        Route("/health", _Health(state), methods=["GET"]),
        Route("/metrics", _Numbers(state), methods=["GET"]),
        Route("/v1/models", _Models(state), methods=["GET"]),
        Route("/v1/models/{name:path}", _Models(state), methods=["GET"]),
        Route("/v1/chat/completions", ChatCompletions(state), methods=["POST"]),
        Route("/v1/clips", ClipList(state, tokens), methods=["GET", "POST"]),
        Route("/v1/clips/{clip}", OneClip(state, tokens), methods=["GET", "DELETE"]),
        Route("/v1/clips/{clip}/media", ClipMedia(state, tokens), methods=["GET"]),
        Route("/v1/clips/{clip}/estimate", ClipCost(state, tokens), methods=["POST"]),
    ]
    if (page / "index.html").is_file():
        routes.append(Mount("/", _Page(page)))
    return Guard(Router(routes, redirect_slashes=False), state.settings, state.metrics)


class _Health(Endpoint):
    """Whether the server runs, and what it does."""

    name = "health"

    async def reply(self, request: Request) -> Response:
        info = self.state.warm.info()
        return JSONResponse(
            {
                "status": "ok",
                "version": omnidrop.__version__,
                "model": self.state.name,
                "loaded": info.loaded,
                "running": self.state.desk.running,
                "waiting": self.state.desk.waiting,
            }
        )


class _Numbers(Endpoint):
    """Counters for Prometheus."""

    name = "metrics"

    async def reply(self, request: Request) -> Response:
        text = self.state.metrics.text(self.state.gauges())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


class _Models(Endpoint):
    """The one model."""

    name = "models"

    async def reply(self, request: Request) -> Response:
        info, settings = self.state.warm.info(), self.state.settings
        usual = self.state.recommended  # known once the model was loaded
        one: dict[str, Any] = {
            "id": self.state.name,
            "object": "model",
            "created": self.state.began,
            "owned_by": "omnidrop",
            "omnidrop": {
                "loaded": info.loaded,
                "device": info.device,
                "dtype": info.dtype,
                "default": usual and {"method": usual.method, "budget": usual.budget},
                "methods": _methods(),
            },
        }
        asked = request.path_params.get("name")
        if asked is None:
            limits = {"upload_bytes": settings.max_upload, "queue": settings.queue}
            return JSONResponse({"object": "list", "data": [one], "limits": limits})
        self.state.check_model(asked)
        return JSONResponse(one)


@cache
def _methods() -> list[dict[str, str]]:
    """Return name and summary of every method."""
    return [{"name": name, "about": describe(kind)} for name, kind in methods().items()]


class _Page:
    """The static page, which loads nothing from elsewhere."""

    def __init__(self, folder: Path) -> None:
        self._files = StaticFiles(directory=folder, html=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route_name"] = "page"

        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": [
                        *message["headers"],
                        (b"content-security-policy", PAGE_POLICY.encode()),
                        (b"cache-control", b"no-cache"),
                    ],
                }
            await send(message)

        await self._files(scope, receive, sending)
