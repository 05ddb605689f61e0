"""Answers as documents in the shape of OpenAI's chat completions, whole and in pieces."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from omnidrop.files import to_json

if TYPE_CHECKING:
    from omnidrop.engine.decode import Token
    from omnidrop.report.trace import Answer

#: `finish_reason` by `Answer.stop`.
_ENDS = {"max new tokens": "length"}


def finish_reason(answer: Answer) -> str:
    """Return why an answer ended, in OpenAI's words."""
    return _ENDS.get(answer.stop, "stop")


def usage(answer: Answer) -> dict[str, Any]:
    """Return the tokens of an answer: the prompt's before pruning, and what was kept of them."""
    trace = answer.trace
    prompt = trace.text_tokens + trace.av_tokens
    kept = trace.kept_per_layer
    mean = sum(kept) / len(kept) if kept else float(trace.av_tokens)
    made = len(answer.token_ids)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"audio_tokens": trace.audio_tokens},
        "omnidrop": {
            "text_tokens": trace.text_tokens,
            "audio_tokens": trace.audio_tokens,
            "video_tokens": trace.video_tokens,
            "kept_prompt_tokens": round(trace.text_tokens + mean, 1),
            "kept_in_first_layer": trace.text_tokens + (kept[0] if kept else 0),
            "kept_in_last_layer": trace.text_tokens + (kept[-1] if kept else 0),
        },
    }


def extension(
    answer: Answer, names: Mapping[str, str], *, report: bool, proof: bool
) -> dict[str, Any]:
    """Return what an answer has beyond OpenAI's fields.

    Parameters
    ----------
    answer : Answer
    names : mapping of str to str
        Paths that clips were read from, and the client's names of them.
    report : bool
        Whether the whole document of the answer is part of it.
    proof : bool
        Whether moments were left out as a proof.
    """
    trace = answer.trace
    found: dict[str, Any] = {
        "method": trace.method["name"],
        "budget": trace.asked_budget,
        "realised_budget": trace.realised_budget,
        "probability": answer.probability,
        "probability_source": answer.probability_source,
        "doubt": answer.doubt,
        "moments": [asdict(moment) for moment in trace.moments],
        "notices": list(trace.notices),
        "ttft": trace.ttft,
        "tokens_per_second": trace.tokens_per_second,
    }
    if answer.choices:
        found["choices"] = [asdict(choice) for choice in answer.choices]
        found["choice_mass"] = answer.choice_mass
    if proof:
        found["left_out"] = [asdict(one) for one in answer.left_out]
    if answer.unpruned_text is not None:
        found["unpruned_text"] = answer.unpruned_text
    if report:
        found["report"] = _renamed(answer.to_dict(), names)
    return found


def _renamed(document: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Replace paths of this machine by the client's names."""

    def name_of(path: object) -> object:
        return names.get(str(path), path) if path is not None else None

    clip = document["trace"]["clip"]
    clip["path"] = name_of(clip["path"])
    if clip.get("sampling"):
        clip["sampling"]["audio_file"] = name_of(clip["sampling"].get("audio_file"))
    return document


class Spelling:
    """Writes tokens as `logprobs` has them.

    Parameters
    ----------
    decode : callable
        ids → text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode

    def one(self, token: Token) -> dict[str, Any]:
        """Return a token with its alternatives."""
        return {
            **self._spelt(token.id, token.logprob),
            "top_logprobs": [self._spelt(*other) for other in token.top],
        }

    def _spelt(self, number: int, logprob: float) -> dict[str, Any]:
        text = self._decode([number])
        whole = "\ufffd" not in text  # else the token is a part of a character
        return {
            "token": text,
            "logprob": max(logprob, -9999.0),
            "bytes": list(text.encode()) if whole else None,
        }


@dataclass
class Reply:
    """One completion.

    Attributes
    ----------
    model : str
    id : str
    created : int
        Seconds since 1970.
    """

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(
        self,
        answer: Answer,
        tokens: Sequence[dict[str, Any]] | None,
        extra: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the completion as one document; `tokens` is what `logprobs` asks for."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.thinking:
            message["reasoning_content"] = answer.thinking
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "logprobs": _logprobs(tokens),
                    "finish_reason": finish_reason(answer),
                }
            ],
            "usage": usage(answer),
            "omnidrop": dict(extra),
        }

    def piece(
        self,
        delta: Mapping[str, Any] | None,
        *,
        tokens: Sequence[dict[str, Any]] | None = None,
        finish: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Return one chunk of a stream; without a delta it has no choices."""
        choices = []
        if delta is not None:
            choices = [
                {
                    "index": 0,
                    "delta": dict(delta),
                    "logprobs": _logprobs(tokens),
                    "finish_reason": finish,
                }
            ]
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **more,
        }


def event(document: Mapping[str, Any] | str) -> bytes:
    """Return a server-sent event."""
    text = document if isinstance(document, str) else to_json(document)
    return f"data: {text}\n\n".encode()


def _logprobs(tokens: Sequence[dict[str, Any]] | None) -> dict[str, Any] | None:
    return None if tokens is None else {"content": list(tokens), "refusal": None}
