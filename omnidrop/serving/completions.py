"""`POST /v1/chat/completions`: from the connection to the desk and back, whole or streamed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from omnidrop.files import plain
from omnidrop.serving.asking import Listener, Opened, ask, open_request
from omnidrop.serving.chat import ChatRequest, read_request
from omnidrop.serving.desk import Job, Stopped, log
from omnidrop.serving.fields import read_json
from omnidrop.serving.problems import Refused, refusal
from omnidrop.serving.replies import Reply, Spelling, event, extension, finish_reason, usage

if TYPE_CHECKING:
    from omnidrop.engine.decode import Token
    from omnidrop.engine.model import Model
    from omnidrop.report.trace import Answer
    from omnidrop.serving.state import State

#: Seconds beyond a request's time in which the rest of a stream must be taken.
GRACE = 5.0


class Piece(NamedTuple):
    """Text of an answer, and its tokens as `logprobs` has them."""

    text: str
    tokens: list[dict[str, Any]] | None


class Doing(NamedTuple):
    """What is being done before the first token."""

    stage: str
    done: float
    total: float | None


class _End(NamedTuple):
    """The end of an exchange: of the job, or because of the client or the clock."""

    why: str


@dataclass
class _Result:
    """What the job made."""

    answer: Answer
    tokens: list[dict[str, Any]] | None
    extra: dict[str, Any]


@dataclass
class _Exchange:
    """One request while it is answered: events come from the model's thread and from here."""

    request: ChatRequest
    job: Job
    began: float = field(default_factory=time.monotonic)
    events: asyncio.Queue[Piece | Doing | _End] = field(default_factory=asyncio.Queue)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    pending: list[dict[str, Any]] = field(default_factory=list)
    all_tokens: list[dict[str, Any]] = field(default_factory=list)

    def put(self, what: Piece | Doing | _End) -> None:
        """Add an event, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self.loop.call_soon_threadsafe(self.events.put_nowait, what)

    def listener(self, model: Model) -> Listener:
        """Return what the model's thread calls."""
        spelling = Spelling(model.adapter.text.decode)
        request = self.request

        def on_token(token: Token) -> None:
            if request.options.logprobs and not token.thought:
                spelt = spelling.one(token)
                self.all_tokens.append(spelt)
                self.pending.append(spelt)

        def on_text(text: str) -> None:
            if request.stream:
                self.put(Piece(text, self.take_pending()))

        def on_progress(stage: str, done: float, total: float | None) -> None:
            if request.wanted.progress:
                self.put(Doing(str(stage), done, total))

        return Listener(on_text, on_token, on_progress)

    def take_pending(self) -> list[dict[str, Any]] | None:
        """Return the tokens since the last piece of text."""
        if not self.request.options.logprobs:
            return None
        taken, self.pending = self.pending, []
        return taken

    async def watch(self, receive: Receive) -> None:
        """Notice when the client leaves."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.job.cancel()
                self.put(_End("left"))
                return


class ChatCompletions:
    """The endpoint, as an ASGI app.

    Parameters
    ----------
    state : State
        Of the server.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["route_name"] = "chat"
        state = self._state
        body = await state.bodies.read(Headers(scope=scope), receive)
        request = await to_thread.run_sync(_read, body)
        del body
        name = state.check_model(request.model)
        try:
            job = state.desk.reserve(state.settings.timeout)
        except Refused:
            state.metrics.count("rejected_total")
            raise
        exchange = _Exchange(request, job)
        clock = exchange.loop.call_later(job.left, exchange.put, _End("time"))
        watch = asyncio.ensure_future(exchange.watch(receive))
        try:
            await self._opened(exchange)
            reply = Reply(name)
            if request.stream:
                await self._stream(exchange, reply, scope, receive, send)
            else:
                await self._whole(exchange, reply, scope, receive, send)
        finally:
            job.cancel()
            clock.cancel()
            watch.cancel()
            state.metrics.time("request_seconds", time.monotonic() - exchange.began)

    async def _opened(self, exchange: _Exchange) -> None:
        """Wait until the request is lined up, or its time is over."""
        start = to_thread.run_sync(self._start, exchange, abandon_on_cancel=True)
        try:
            await asyncio.wait_for(start, max(0.0, exchange.job.left))
        except TimeoutError:
            self._result(exchange, _End("time"))

    def _start(self, exchange: _Exchange) -> None:
        """Open the clip, and line up for the model."""
        state, request, job = self._state, exchange.request, exchange.job
        opened = open_request(request, state.clips, state.sessions, state.openings)
        try:
            job.done.add_done_callback(lambda _: opened.close())
            job.done.add_done_callback(lambda _: exchange.put(_End("job")))
        except BaseException:
            opened.close()
            raise

        def work(model: Model, job: Job) -> _Result:
            state.know(model)
            try:
                return self._work(exchange, opened, model, job)
            except Stopped:
                raise
            except Exception as problem:
                raise refusal(problem, opened.names) from problem

        job.submit(work)

    def _work(self, exchange: _Exchange, opened: Opened, model: Model, job: Job) -> _Result:
        """Answer, in the model's thread."""
        state, request = self._state, exchange.request
        listener = exchange.listener(model)
        answer = ask(request, opened, model, job, state.sessions, state.turns, listener)
        spent = usage(answer)
        state.metrics.count("answers_total")
        state.metrics.count("prompt_tokens_total", spent["prompt_tokens"])
        state.metrics.count("kept_tokens_total", spent["omnidrop"]["kept_prompt_tokens"])
        state.metrics.count("generated_tokens_total", spent["completion_tokens"])
        state.metrics.time("ttft_seconds", answer.trace.ttft)
        wanted = request.wanted
        extra = extension(answer, opened.names, report=wanted.report, proof=wanted.evidence)
        tokens = exchange.all_tokens if request.options.logprobs else None
        return _Result(answer, tokens, plain(extra))

    async def _whole(
        self, exchange: _Exchange, reply: Reply, scope: Scope, receive: Receive, send: Send
    ) -> None:
        while not isinstance(end := await exchange.events.get(), _End):
            pass
        result = self._result(exchange, end)
        if result is None:
            return
        document = reply.whole(result.answer, result.tokens, result.extra)
        await JSONResponse(plain(document))(scope, receive, _bounded(send, exchange.job))

    async def _stream(
        self, exchange: _Exchange, reply: Reply, scope: Scope, receive: Receive, send: Send
    ) -> None:
        send = _bounded(send, exchange.job)
        first = await exchange.events.get()
        if isinstance(first, _End) and (
            first.why != "job" or exchange.job.done.exception() is not None
        ):
            self._result(exchange, first)  # raises, if there is somebody to tell
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"cache-control", b"no-store"),
                    (b"x-accel-buffering", b"no"),
                ],
            }
        )
        async for document in self._documents(exchange, reply, first):
            body = event(document)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _documents(
        self, exchange: _Exchange, reply: Reply, first: Piece | Doing | _End
    ) -> AsyncIterator[dict[str, Any] | str]:
        """Yield the documents of a stream, from its first event on."""
        request = exchange.request
        usual: dict[str, Any] = {"usage": None} if request.usage else {}
        none: list[dict[str, Any]] | None = [] if request.options.logprobs else None
        yield reply.piece({"role": "assistant", "content": ""}, tokens=none, **usual)
        now: Piece | Doing | _End = first
        while not isinstance(now, _End):
            if isinstance(now, Piece):
                yield reply.piece({"content": now.text}, tokens=now.tokens, **usual)
            else:
                doing = {"progress": now._asdict()}
                yield reply.piece(None, omnidrop=doing, **usual)
            now = await exchange.events.get()
        try:
            result = self._result(exchange, now)
        except Refused as problem:
            yield problem.document()
            return
        if result is None:
            return
        answer, rest = result.answer, exchange.take_pending()
        if answer.thinking:
            yield reply.piece({"reasoning_content": answer.thinking}, tokens=none, **usual)
        yield reply.piece(
            {}, tokens=rest, finish=finish_reason(answer), omnidrop=result.extra, **usual
        )
        if request.usage:
            yield reply.piece(None, usage=usage(answer))
        yield "[DONE]"

    def _result(self, exchange: _Exchange, end: _End) -> _Result | None:
        """Return what the job made; None if the client left.

        Raises
        ------
        Refused
            What the client is told instead.
        """
        metrics = self._state.metrics
        if end.why == "left":
            metrics.count("cancelled_total")
            return None
        problem: BaseException | None = Stopped()
        if end.why == "job":
            with suppress(InvalidStateError):
                problem = exchange.job.done.exception()
            if problem is None:
                result: _Result = exchange.job.done.result()
                return result
        if isinstance(problem, Stopped):
            if self._state.stopping:
                raise Refused(503, "The server is stopping.", code="stopping")
            metrics.count("timeouts_total")
            raise Refused(
                504,
                f"The answer was not complete after {self._state.settings.timeout:g} s.",
                code="timeout",
            )
        told = refusal(problem) if problem is not None else Refused(500, "No answer.")
        if told.status >= 500:
            log.error("a question failed", exc_info=told.__cause__ or problem)
        raise told


def _read(body: bytes) -> ChatRequest:
    return read_request(read_json(body))


def _bounded(send: Send, job: Job) -> Send:
    """Return `send` that waits for a client no longer than its request may take."""

    async def sending(message: Any) -> None:
        await asyncio.wait_for(send(message), max(0.0, job.left) + GRACE)

    return sending
