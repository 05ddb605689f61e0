"""What is wrong with a request, as a status and a document in the shape of OpenAI's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from omnidrop.errors import (
    MediaError,
    MemoryShortError,
    ModelError,
    OmniDropError,
    OutsideError,
    UsageError,
)

#: Options of the command line that the library's messages name, and what a request calls them.
_OPTION = re.compile(r"--([a-z][a-z-]*)")

#: What a request calls `--no-audio` and `--no-video`.
_SAID = {
    "no-audio": "`omnidrop.audio: false`",
    "no-video": "`omnidrop.video: false`",
    "max-new-tokens": "`max_tokens`",
    "anyway": "`omnidrop.anyway: true`",
}


class Refused(Exception):
    """A request that gets an error instead of an answer.

    Parameters
    ----------
    status : int
        HTTP status.
    message : str
        Cause and remedy.
    param : str, optional
        The field of the request that is wrong.
    code : str, optional
        A word for programs.
    retry_after : float, optional
        Seconds after which the client may try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.param, self.code, self.retry_after = param, code, retry_after

    @property
    def kind(self) -> str:
        """OpenAI's word for this class of errors."""
        known = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
        if self.status == 429:
            return "rate_limit_error"
        return known.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )

    def document(self) -> dict[str, Any]:
        """Return the error as clients of OpenAI's API read it."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        found = {}
        if self.retry_after is not None:
            found["Retry-After"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            found["WWW-Authenticate"] = "Bearer"
        return found


def wrong(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """Return the error of a request that is not valid."""
    return Refused(400, message, param=param, code=code)


def busy() -> Refused:
    """Return the error of a request whose turn did not come in time."""
    return Refused(503, "The model is busy.", code="busy", retry_after=5)


def refusal(problem: BaseException, names: Mapping[str, str] | None = None) -> Refused:
    """Return what a client is told of an error.

    Parameters
    ----------
    problem : exception
        Those of the library are told with cause and remedy, others as an internal error: their
        texts may hold what clients must not see.
    names : mapping, optional
        Paths of this machine, and the names that the client knows them by.
    """
    if isinstance(problem, Refused):
        return problem
    if not isinstance(problem, OmniDropError):
        return Refused(500, "An internal error; the server's log has it.", code="internal_error")
    text = _in_requests(problem)
    if problem.path is not None:
        known = (names or {}).get(str(problem.path))
        text = f"{known}: {text}" if known is not None else text
    status, code = _status(problem)
    return Refused(status, text, code=code)


def _status(problem: OmniDropError) -> tuple[int, str]:
    if isinstance(problem, OutsideError):
        return 400, "outside_model"
    if isinstance(problem, UsageError):
        return 400, "invalid_value"
    if isinstance(problem, MediaError):
        return 400, "invalid_clip"
    if isinstance(problem, MemoryShortError):
        return 413, "memory_short"
    return 500, "model_error" if isinstance(problem, ModelError) else "internal_error"


def _in_requests(problem: OmniDropError) -> str:
    """Return cause and remedy with options named as in a request."""
    if isinstance(problem, OutsideError):
        return f"{problem.what} Set `omnidrop.anyway` to true to ask all the same."
    text = f"{problem.what} {problem.hint}" if problem.hint else problem.what
    return _OPTION.sub(
        lambda found: _SAID.get(found[1], f"`omnidrop.{found[1].replace('-', '_')}`"), text
    )
