"""Chat completions, with the `openai` package as the client."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from omnidrop.engine.conversation import Said
from omnidrop.files import plain
from omnidrop.options import GenerateOptions
from omnidrop.testing import media
from tests.serving.conftest import QUESTION, Place, chat

if TYPE_CHECKING:
    from omnidrop.engine.model import Model

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(place: Place) -> Any:
    return openai.OpenAI(base_url=f"{place.url}/v1", api_key="unused", max_retries=0)


def asked(client: Any, url: str | None, question: str = QUESTION, **fields: Any) -> Any:
    body = {"model": "omnidrop", **chat(url, question), **fields}
    return client.chat.completions.create(**body)


def known(model: Model, clip: Path, question: str = QUESTION, **settings: Any) -> Any:
    """Answer without a server."""
    settings.setdefault("options", GenerateOptions(max_new_tokens=6))
    with model.open(clip) as session:
        return session.ask(question, **settings)


def test_the_answer_is_that_of_the_library(client: Any, model: Model, root: Path) -> None:
    expected = known(model, root / "one.mp4")
    found = asked(client, "one.mp4")
    assert found.choices[0].message.content == expected.text
    assert found.choices[0].finish_reason == "length"
    trace = expected.trace
    assert found.usage.prompt_tokens == trace.text_tokens + trace.av_tokens
    assert found.usage.completion_tokens == len(expected.token_ids) == 6
    assert found.usage.prompt_tokens_details.audio_tokens == trace.audio_tokens
    kept = trace.text_tokens + sum(trace.kept_per_layer) / trace.layers
    assert found.usage.omnidrop["kept_prompt_tokens"] == pytest.approx(kept, abs=0.1)
    assert found.omnidrop["method"] == trace.method["name"]


@pytest.mark.parametrize("form", ["file", "absolute", "link", "up and down"])
def test_a_clip_by_any_of_its_names(
    client: Any, model: Model, root: Path, form: str, tmp_path: Path
) -> None:
    clip = root / "inner" / "two.mp4"
    url = {
        "file": clip.as_uri(),
        "absolute": str(clip),
        "link": "again.mp4",
        "up and down": "./inner//two.mp4",
    }[form]
    assert asked(client, url).choices[0].message.content == known(model, clip).text


def test_a_clip_and_audio_in_the_request(client: Any, model: Model, root: Path) -> None:
    content = (root / "one.mp4").read_bytes()
    url = f"data:video/mp4;base64,{base64.b64encode(content).decode()}"
    expected = known(model, root / "one.mp4")
    found = asked(client, url, extra_body={"omnidrop": {"report": True}})
    assert found.choices[0].message.content == expected.text
    assert found.omnidrop["report"]["trace"]["clip"]["path"] == "data"


@pytest.mark.parametrize("beside", [False, True])
def test_input_audio(client: Any, model: Model, root: Path, tmp_path: Path, beside: bool) -> None:
    sound = media.wav(tmp_path / "tone.wav", seconds=2.0, hertz=880)
    part = {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(sound.read_bytes()).decode(), "format": "wav"},
    }
    body = chat("one.mp4" if beside else None)
    body["messages"][0]["content"].append(part)
    found = client.chat.completions.create(model="omnidrop", **body)
    if beside:
        with model.open(root / "one.mp4", audio_file=sound) as session:
            expected = session.ask(QUESTION, options=GenerateOptions(max_new_tokens=6))
    else:
        expected = known(model, sound)
    assert found.choices[0].message.content == expected.text
    assert found.usage.prompt_tokens_details.audio_tokens == expected.trace.audio_tokens


def test_a_stream_is_the_answer_in_pieces(client: Any) -> None:
    whole = asked(client, "one.mp4", max_tokens=12)
    parts = list(
        asked(client, "one.mp4", max_tokens=12, stream=True, stream_options={"include_usage": True})
    )
    texts = [part.choices[0].delta.content for part in parts if part.choices]
    assert "".join(filter(None, texts)) == whole.choices[0].message.content
    assert len(texts) > 3
    ends = [part for part in parts if part.choices and part.choices[0].finish_reason]
    assert [end.choices[0].finish_reason for end in ends] == ["length"]
    assert ends[0].omnidrop["method"] == whole.omnidrop["method"]
    assert parts[-1].usage.model_dump() == whole.usage.model_dump()
    assert all(part.usage is None for part in parts[:-1])


def test_a_stream_tells_what_is_being_done(client: Any, root: Path) -> None:
    fields = {"omnidrop": {"progress": True, "max_frames": 4}}
    parts = list(asked(client, "inner/two.mp4", stream=True, extra_body=fields))
    stages = [part.omnidrop["progress"]["stage"] for part in parts if not part.choices]
    assert "prefill" in stages


def test_log_probabilities(client: Any, model: Model, root: Path) -> None:
    told: list[Any] = []
    options = GenerateOptions(max_new_tokens=6, logprobs=True, top_logprobs=3)
    expected = known(model, root / "one.mp4", options=options, on_token=told.append)
    found = asked(client, "one.mp4", logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert [one.logprob for one in found] == pytest.approx(list(expected.logprobs))
    assert [[top.logprob for top in one.top_logprobs] for one in found] == [
        pytest.approx([logprob for _, logprob in one.top]) for one in told
    ]
    # Greedy decoding takes the most probable token.
    assert all(one.token == one.top_logprobs[0].token for one in found)
    streamed = asked(client, "one.mp4", logprobs=True, top_logprobs=3, stream=True)
    pieces = [part.choices[0].logprobs for part in streamed if part.choices]
    joined = [token for piece in pieces if piece for token in piece.content or []]
    assert [one.model_dump() for one in joined] == [one.model_dump() for one in found]


def test_an_answer_ends_at_a_given_text(client: Any) -> None:
    whole = asked(client, "one.mp4", max_tokens=12).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    found = asked(client, "one.mp4", max_tokens=12, stop=[stop, "never"]).choices[0]
    assert found.message.content == whole[: whole.index(stop)]
    assert found.finish_reason == "stop"
    parts = asked(client, "one.mp4", max_tokens=12, stop=stop, stream=True)
    streamed = "".join(part.choices[0].delta.content or "" for part in parts)
    assert streamed == found.message.content


def test_sampling_follows_the_seed(client: Any, model: Model, root: Path) -> None:
    options = GenerateOptions(max_new_tokens=8, temperature=1.5, top_p=0.9, seed=5)
    fields = {"max_tokens": 8, "temperature": 1.5, "top_p": 0.9}
    found = asked(client, "one.mp4", seed=5, **fields).choices[0].message.content
    assert found == known(model, root / "one.mp4", options=options).text
    assert found != asked(client, "one.mp4", seed=6, **fields).choices[0].message.content


def test_turns_are_the_ids_that_were_generated(client: Any, model: Model, root: Path) -> None:
    """The answer sent back by a client is the one that was generated, not its text encoded."""
    clip = root / "one.mp4"
    first = asked(client, "one.mp4", max_tokens=12)
    text = first.choices[0].message.content
    body = chat("one.mp4", max_tokens=12)
    body["messages"] += [
        first.choices[0].message.model_dump(),
        {"role": "user", "content": "And then?"},
    ]
    body["omnidrop"] = {"report": True}
    found = client.chat.completions.create(
        model="omnidrop", messages=body["messages"], max_tokens=12,
        extra_body={"omnidrop": body["omnidrop"]},
    )  # fmt: skip
    options = GenerateOptions(max_new_tokens=12)
    with model.open(clip) as session:
        one = session.ask(QUESTION, options=options)
        two = session.ask("And then?", earlier=[one], options=options)
    assert found.choices[0].message.content == two.text
    (turn,) = found.omnidrop["report"]["trace"]["settings"]["earlier"]
    assert turn == {"question": QUESTION, "answer": text, "token_ids": list(one.token_ids)}


def test_turns_of_another_model_are_their_text(client: Any, model: Model, root: Path) -> None:
    messages = [
        *chat("one.mp4")["messages"],
        {"role": "assistant", "content": "A drum, I think."},
        {"role": "user", "content": "And then?"},
    ]
    found = client.chat.completions.create(model="omnidrop", messages=messages, max_tokens=6)
    expected = known(
        model, root / "one.mp4", "And then?", earlier=[Said(QUESTION, "A drum, I think.")]
    )
    assert found.choices[0].message.content == expected.text


def test_a_system_message(client: Any, model: Model, root: Path) -> None:
    body = chat("one.mp4")
    body["messages"].insert(0, {"role": "developer", "content": "You count."})
    found = client.chat.completions.create(model="omnidrop", **body)
    expected = known(model, root / "one.mp4", system="You count.")
    assert found.choices[0].message.content == expected.text


def test_choices_budget_and_method(client: Any, model: Model, root: Path) -> None:
    wanted = {
        "choices": ["one", "two"],
        "budget": 0.5,
        "method": "uniform",
        "end": 1.5,
        "report": True,
    }
    found = asked(client, "one.mp4", extra_body={"omnidrop": wanted})
    from omnidrop import Uniform

    with model.open(root / "one.mp4", end=1.5) as session:
        expected = session.ask(QUESTION, choices=["one", "two"], method=Uniform(budget=0.5))
    assert found.choices[0].message.content == expected.text
    shares = {one["text"]: one["probability"] for one in found.omnidrop["choices"]}
    assert shares == pytest.approx({one.text: one.probability for one in expected.choices})
    report = found.omnidrop["report"]
    assert report["schema"] == "omnidrop.answer/1"
    assert report["trace"]["clip"]["path"] == "one.mp4"
    assert report["trace"]["method"]["budget"] == 0.5
    assert found.omnidrop["realised_budget"] == expected.trace.realised_budget


def test_check_and_evidence(client: Any, model: Model, root: Path) -> None:
    wanted = {"budget": 0.5, "check": True, "evidence": True, "method": "fastv"}
    found = asked(client, "inner/two.mp4", extra_body={"omnidrop": wanted}).omnidrop
    from omnidrop import FastV

    clip = root / "inner" / "two.mp4"
    expected = known(model, clip, method=FastV(budget=0.5), check=True, evidence=True)
    assert found["unpruned_text"] == expected.unpruned_text
    assert found["left_out"] == plain([asdict(one) for one in expected.left_out])
    assert found["notices"] == list(expected.trace.notices)


def test_without_a_clip(client: Any, model: Model) -> None:
    from omnidrop.engine.encode import Features

    with model.features(Features()) as session:
        expected = session.ask("Hello?", options=GenerateOptions(max_new_tokens=6))
    assert asked(client, None, "Hello?").choices[0].message.content == expected.text


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "gpt-4o"}, 404, "model_not_found"),
        ({"n": 2}, 400, "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, 400, "unsupported_parameter"),
        ({"extra_body": {"omnidrop": {"method": "nothing"}}}, 400, "invalid_value"),
        ({"extra_body": {"omnidrop": {"settings": {"nothing": 1}}}}, 400, "invalid_value"),
        ({"extra_body": {"omnidrop": {"preset": "nothing"}}}, 400, "invalid_value"),
        ({"extra_body": {"omnidrop": {"method": "fastv", "budget": 0.1}}}, 400, "invalid_value"),
        ({"extra_body": {"omnidrop": {"start": 90}}}, 400, "invalid_value"),
        ({"extra_body": {"omnidrop": {"choices": ["a", "a"]}}}, 400, "invalid_value"),
    ],
)
def test_what_cannot_be_done_is_told(client: Any, fields: Any, status: int, code: str) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        asked(client, "one.mp4", **fields)
    assert caught.value.status_code == status
    assert caught.value.code == code
    assert "--" not in caught.value.message


def test_an_error_before_a_stream_is_a_status(client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="no method"):
        asked(client, "one.mp4", stream=True, extra_body={"omnidrop": {"method": "nothing"}})


def test_models(client: Any, model: Model) -> None:
    (one,) = client.models.list().data
    assert client.models.retrieve(one.id).id == one.id
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_a_clip_is_encoded_once(serve: Callable[..., Place]) -> None:
    place = serve()
    for question in (QUESTION, "And then?"):
        assert place.ask("one.mp4", question).status_code == 200
    wanted = {"omnidrop": {"report": True}}
    stages = place.ask("one.mp4", **wanted).json()["omnidrop"]["report"]["trace"]["stages"]
    assert any(stage["reused"] for stage in stages)
    numbers = place.client.get("/metrics").text
    assert "omnidrop_encoding_hits_total 2" in numbers
    assert "omnidrop_encoding_misses_total 1" in numbers
    assert "omnidrop_answers_total 3" in numbers


def test_a_changed_file_is_read_again(serve: Callable[..., Place], tmp_path: Path) -> None:
    clip = media.write(tmp_path / "a.mp4", seconds=1, fps=8, size=(64, 48))
    place = serve(root=tmp_path)
    before = place.ask("a.mp4").json()["usage"]["prompt_tokens"]
    media.write(clip, seconds=4, fps=8, size=(64, 48))
    assert place.ask("a.mp4").json()["usage"]["prompt_tokens"] > before
