"""`/v1/clips`: upload, list, describe and delete clips, play them, and estimate what they cost."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import quote

from anyio import to_thread
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from omnidrop.errors import OmniDropError
from omnidrop.files import plain
from omnidrop.serving.clips import ROOT_MARK, described
from omnidrop.serving.endpoint import Endpoint
from omnidrop.serving.estimates import PATIENCE, read_cost_request
from omnidrop.serving.fields import read_json
from omnidrop.serving.guard import UNAUTHORISED
from omnidrop.serving.media import send_clip
from omnidrop.serving.problems import Refused, refusal
from omnidrop.serving.receiving import receive_clip
from omnidrop.serving.sources import Source
from omnidrop.serving.state import State


class Tokens:
    """Signs the addresses of clips' media, for players that cannot send an API key."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, clip: str) -> str:
        """Return the token of a clip."""
        return hmac.new(self._secret, clip.encode(), hashlib.sha256).hexdigest()[:40]

    def check(self, clip: str, given: str) -> bool:
        """Return whether a token is that of a clip."""
        return hmac.compare_digest(self.sign(clip).encode(), given.encode("utf-8", "replace"))


class ClipEndpoint(Endpoint):
    """Endpoints about clips share how a clip is told."""

    def __init__(self, state: State, tokens: Tokens) -> None:
        super().__init__(state)
        self.tokens = tokens

    def address(self, clip: str) -> str:
        """Return where a clip's media are; it works without an API key."""
        return f"/v1/clips/{quote(clip, safe=':')}/media?token={self.tokens.sign(clip)}"

    def describe(self, clip: str, source: Source) -> dict[str, Any]:
        """Return what is told of one clip."""
        facts = self.state.clips.facts(source)
        return {**described(clip, source.name, facts), "media": self.address(clip)}


class ClipList(ClipEndpoint):
    """GET lists, POST uploads."""

    name = "clips"

    async def reply(self, request: Request) -> Response:
        """Return the list, or the uploaded clip."""
        if request.method == "POST":
            return await self._upload(request)
        found, more = await to_thread.run_sync(self.state.clips.listed)
        data = [{**one, "object": "clip", "media": self.address(one["id"])} for one in found]
        return JSONResponse(plain({"object": "list", "data": data, "has_more": more}))

    async def _upload(self, request: Request) -> Response:
        clips, limit = self.state.clips, self.state.settings.max_upload
        with clips.uploads.draft(limit) as draft:
            name = await receive_clip(request.headers, request.receive, draft, limit)
            upload = await to_thread.run_sync(clips.uploads.keep, draft, name)
        await to_thread.run_sync(clips.check, upload)

        def told() -> dict[str, Any]:
            with clips.uploads.open(upload) as source:
                return self.describe(upload.id, source)

        return JSONResponse(plain(await to_thread.run_sync(told)), 201)


class OneClip(ClipEndpoint):
    """GET describes, DELETE deletes an upload."""

    name = "clip"

    async def reply(self, request: Request) -> Response:
        """Return what is known of the clip."""
        clip = request.path_params["clip"]
        if request.method == "DELETE":
            if clip.startswith(ROOT_MARK):
                raise Refused(403, "Files of the server's folder are not deleted.")
            self.state.clips.uploads.find(clip)
            self.state.clips.uploads.drop(clip)
            return JSONResponse({"id": clip, "object": "clip", "deleted": True})

        def told() -> dict[str, Any]:
            with self.state.clips.open_id(clip) as source:
                return self.describe(clip, source)

        return JSONResponse(plain(await to_thread.run_sync(told)))


class ClipCost(ClipEndpoint):
    """POST estimates what a question would cost."""

    name = "estimate"

    async def reply(self, request: Request) -> Response:
        """Return the estimate."""
        body = await self.state.bodies.read(request.headers, request.receive)
        asked = read_cost_request(read_json(body))
        clip = request.path_params["clip"]

        def told() -> dict[str, Any]:
            with self.state.clips.open_id(clip) as source:
                recommended = self.state.recommendation(PATIENCE)
                try:
                    return self.state.costs.of(source, asked, recommended)
                except OmniDropError as problem:
                    raise refusal(problem, {str(source.path): source.name}) from None

        return JSONResponse(plain(await to_thread.run_sync(told)))


class ClipMedia:
    """GET plays a clip, in ranges."""

    def __init__(self, state: State, tokens: Tokens) -> None:
        self._state, self._tokens = state, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the clip, or a part of it."""
        scope["route_name"] = "media"
        clip = scope["path_params"]["clip"]
        token = QueryParams(scope["query_string"]).get("token", "")
        if scope.get(UNAUTHORISED) and not self._tokens.check(clip, token):
            raise Refused(401, "The API key is missing or wrong.", code="invalid_api_key")
        source = await to_thread.run_sync(self._state.clips.open_id, clip)
        await send_clip(source, scope, receive, send)


__all__ = ["ClipCost", "ClipList", "ClipMedia", "OneClip", "Tokens"]
