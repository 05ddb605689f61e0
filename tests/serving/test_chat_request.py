"""Requests are read whole: each field is honoured, or refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnidrop.options import GenerateOptions
from omnidrop.serving.chat import Sound, read_request
from omnidrop.serving.fields import read_json
from omnidrop.serving.problems import Refused

CLIP = {"type": "video_url", "video_url": {"url": "a.mp4"}}
WORDS = {"type": "text", "text": "What plays?"}


def request(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages) or [{"role": "user", "content": [CLIP, WORDS]}], **fields}


def test_what_is_asked_is_read() -> None:
    found = read_request(
        request(
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [CLIP, WORDS, {"type": "text", "text": "Say it."}]},
            {"role": "assistant", "content": "A piano.", "refusal": None, "annotations": []},
            {"role": "user", "content": "And then?"},
            model="demo",
            max_completion_tokens=7,
            temperature=0.5,
            top_p=0.9,
            seed=3,
            stop="END",
            logprobs=True,
            top_logprobs=2,
            stream=True,
            stream_options={"include_usage": True},
            omnidrop={"budget": 0.2, "method": "fastv", "start": 1, "end": 2.5, "report": True},
        )
    )
    assert found.question == "And then?"
    assert found.turns == (("What plays?\nSay it.", "A piano."),)
    assert (found.system, found.video, found.model) == ("Be brief.", "a.mp4", "demo")
    assert found.options == GenerateOptions(
        max_new_tokens=7,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=("END",),
        logprobs=True,
        top_logprobs=2,
    )
    assert (found.stream, found.usage) == (True, True)
    assert (found.wanted.clip.start, found.wanted.clip.end) == (1, 2.5)
    assert (found.wanted.budget, found.wanted.method, found.wanted.report) == (0.2, "fastv", True)


def test_audio_stands_in_the_request() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    found = read_request(request({"role": "user", "content": [sound, WORDS]}))
    assert found.sound == Sound("AAAA", "wav")
    assert found.video is None


def test_what_changes_nothing_may_be_said() -> None:
    read_request(
        request(
            n=1,
            user="me",
            store=False,
            tools=[],
            logit_bias={},
            presence_penalty=0,
            response_format={"type": "text"},
            modalities=["text"],
            temperature=None,
            stop=None,
        )
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"frequency_penalty": 0.1}, "frequency_penalty"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"store": True}, "store"),
        ({"best_of": 2}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_completion_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": "yes"}, "stream"),
        ({"model": 3}, "model"),
        ({"omnidrop": []}, "omnidrop"),
        ({"omnidrop": {"budgets": 0.1}}, "omnidrop.budgets"),
        ({"omnidrop": {"budget": 0}}, "omnidrop.budget"),
        ({"omnidrop": {"budget": 1.1}}, "omnidrop.budget"),
        ({"omnidrop": {"settings": []}}, "omnidrop.settings"),
        ({"omnidrop": {"start": 3, "end": 2}}, "omnidrop.end"),
        ({"omnidrop": {"fps": -1}}, "omnidrop.fps"),
        ({"omnidrop": {"max_pixels": 1.5}}, "omnidrop.max_pixels"),
        ({"omnidrop": {"preset": "a", "budget": 0.5}}, "omnidrop.preset"),
        ({"omnidrop": {"progress": True}}, "omnidrop.progress"),
        ({"omnidrop": {"choices": ["a", "b"]}, "logprobs": True}, "logprobs"),
        ({"omnidrop": {"choices": ["a", "b"]}, "temperature": 1}, "temperature"),
        ({"omnidrop": {"choices": ["a", "b"]}, "stop": "x"}, "stop"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as caught:
        read_request(request(**fields))
    assert caught.value.status == 400
    assert caught.value.param == param
    assert param.rpartition(".")[2] in caught.value.message


USER = {"role": "user", "content": [CLIP, WORDS]}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "at least one"),
        ("hello", "list"),
        ([{"role": "user"}], "text or a list"),
        ([{"role": "user", "content": "  "}], "no text"),
        ([{"role": "tool", "content": "x"}], "tool"),
        ([USER, USER], "take turns"),
        ([USER, {"role": "assistant", "content": "x"}], "last message"),
        ([{"role": "assistant", "content": "x"}, USER], "follows a user's"),
        ([USER, {"role": "system", "content": "x"}], "before all others"),
        ([{"role": "user", "content": [CLIP]}], "no text"),
        ([{"role": "user", "content": [CLIP, CLIP, WORDS]}], "one clip"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}, WORDS]}], "still"),
        ([{"role": "user", "content": [{"type": "file"}, WORDS]}], "not supported"),
        ([{"role": "user", "content": [{"text": "x"}]}], "type is missing"),
        ([{"role": "user", "content": "x", "tool_calls": []}], "no field"),
        ([{"role": "user", "content": ["x"]}], "must be an object"),
        (
            [
                USER,
                {"role": "assistant", "content": "x"},
                {"role": "user", "content": [{**CLIP, "video_url": {"url": "b.mp4"}}, WORDS]},
            ],
            "one clip",
        ),
    ],
)
def test_messages_that_make_no_conversation(messages: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read_request({"messages": messages})


def test_the_clip_may_be_sent_with_every_message() -> None:
    said = {"role": "assistant", "content": [{"type": "text", "text": "A piano."}]}
    found = read_request(request(USER, said, USER))
    assert found.turns == (("What plays?", "A piano."),)


def test_without_a_clip_nothing_of_a_clip_can_be_asked() -> None:
    assert read_request(request({"role": "user", "content": "Hello?"})).video is None
    with pytest.raises(Refused, match="needs a clip"):
        read_request(request({"role": "user", "content": "Hello?"}, omnidrop={"budget": 0.5}))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"a": NaN}', b'{"a": 1e999', b"[" * 100_000, b'{"a": ' + b"9" * 9999 + b"}"],
)
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(Refused, match="not JSON"):
        read_json(body)


@pytest.mark.parametrize("body", [b"null", b"3", b'"x"', b"[]"])
def test_json_that_is_no_object(body: bytes) -> None:
    with pytest.raises(Refused, match="must be an object"):
        read_request(read_json(body))


def test_half_characters_are_refused() -> None:
    with pytest.raises(Refused, match="half a character"):
        read_request(read_json(b'{"messages":[{"role":"user","content":"\\ud800"}]}'))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "url", "user", "budget", "data"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["messages", "model", "max_tokens", "stop", "stream", "omnidrop", "n", "seed", "tools"]
        ),
        values,
        max_size=5,
    )
)
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    refused: Refused | None = None
    try:
        read_request(document)
    except Refused as problem:
        refused = problem
    assert refused is None or (refused.status == 400 and refused.message)
