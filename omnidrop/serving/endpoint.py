"""A route that answers with one document."""

from __future__ import annotations

from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from omnidrop.serving.state import State


class Endpoint:
    """Answers with what `reply` returns; an ASGI app.

    Parameters
    ----------
    state : State
        Of the server.
    """

    #: In the metrics.
    name: ClassVar[str] = "other"

    def __init__(self, state: State) -> None:
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["route_name"] = self.name
        response = await self.reply(Request(scope, receive))
        await response(scope, receive, send)

    async def reply(self, request: Request) -> Response:
        """Return the response."""
        raise NotImplementedError
