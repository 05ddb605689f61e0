"""The answerer: rows to records, one encoding for each clip, and settings that can be sent."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omnidrop.batch.answering import Answerer, AnswerOptions, Hooks, MethodChoice
from omnidrop.batch.keys import WHOLE, content_of
from omnidrop.batch.rows import Row
from omnidrop.begun import Begun, _Note
from omnidrop.engine.model import Model
from omnidrop.errors import UsageError
from omnidrop.options import GenerateOptions, LoadOptions
from omnidrop.pruning.registry import get_method
from omnidrop.recommended import SAFE

SHORT = GenerateOptions(max_new_tokens=4)


@pytest.fixture
def options(folder: Path) -> AnswerOptions:
    load = LoadOptions(model=str(folder), device="cpu", dtype="float32", offline=True)
    return AnswerOptions(load, MethodChoice("uniform", 0.5), generate=SHORT)


@pytest.fixture
def rows(clips: Path) -> list[Row]:
    return [
        Row("1", clips / "a.mp4", "What plays first?", extra={"topic": "sound", "answer": "piano"}),
        Row("2", clips / "bad.mp4", "Which?", extra={"seconds": 7}),
        Row("3", clips / "a.mp4", "Which?", choices=("red", "blue")),
        Row("4", clips / "b.mp4", "Then?", end=0.4),
    ]


def test_every_row_has_a_record_and_a_clip_is_opened_once(model, options, rows, monkeypatch):
    opened: list[str] = []
    prepare = Model.prepare

    def counted(self, source, options=None):
        opened.append(source.name)
        return prepare(self, source, options)

    monkeypatch.setattr(Model, "prepare", counted)
    asked: list[str] = []
    answerer = Answerer(options, Hooks(on_row=lambda row: asked.append(row.id)), model=model)
    found = {record["id"]: record for record in answerer.answer(rows)}
    assert list(found) == ["1", "3", "2", "4"]
    assert sorted(opened) == ["a.mp4", "b.mp4", "bad.mp4"], "a thread opens the next one"
    assert asked == ["1", "3", "2", "4"]
    assert found["1"]["schema"] == "omnidrop.answer/1"
    assert found["1"]["trace"]["method"]["name"] == "uniform"
    assert (found["1"]["topic"], found["1"]["expected"]) == ("sound", "piano")
    assert found["3"]["text"] in ("red", "blue")
    assert any(stage["reused"] for stage in found["3"]["trace"]["stages"])
    assert found["4"]["end"] == 0.4
    assert found["2"]["schema"] == "omnidrop.error/1"
    assert found["2"]["exit_code"] == 3
    assert found["2"]["input_seconds"] == 7
    assert len({record["key"] for record in found.values()}) == 4
    assert len({record["setup"] for record in found.values()}) == 1
    json.dumps(found, allow_nan=False)


def test_what_is_read_ahead_is_answered_like_what_is_not(model, options, rows, monkeypatch):
    from dataclasses import replace

    opened: list[bool] = []
    open_clip = Model.open

    def noted(self, source, *given, **settings):
        opened.append(source.is_read_ahead)
        return open_clip(self, source, *given, **settings)

    monkeypatch.setattr(Model, "open", noted)

    def texts(ahead: bool, decoded: bool = False) -> list[object]:
        monkeypatch.setattr("omnidrop.engine.model.decodes_in_parallel", lambda _: decoded)
        answerer = Answerer(replace(options, read_ahead=ahead), model=model)
        return [record.get("token_ids") for record in answerer.answer(rows)]

    usual = texts(False)
    assert texts(True) == usual
    assert not any(opened)
    opened.clear()
    assert texts(True, decoded=True) == usual
    assert opened == [True, True]


def test_an_answerer_can_be_sent_and_loads_its_own_model(options, rows, model):
    loads: list[LoadOptions] = []

    def load(given: LoadOptions) -> Model:
        loads.append(given)
        return model

    sent = pickle.loads(pickle.dumps(Answerer(options, Hooks(on_load=load), model=model)))
    assert sent.options == options
    assert sent._model is None
    lazy = Answerer(options, Hooks(on_load=load))
    assert list(lazy.answer([])) == []
    assert not loads
    record = next(lazy.answer(rows))
    assert loads == [options.load]
    assert record["setup"] == sent.setup.key


def test_an_answerer_needs_no_torch_before_its_first_row():
    code = (
        "import sys, pickle\n"
        "from omnidrop.batch.answering import Answerer, AnswerOptions\n"
        "pickle.loads(pickle.dumps(Answerer(AnswerOptions())))\n"
        "print(sorted({'torch', 'transformers', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_key_knows_content_and_not_names(options, rows, model, tmp_path):
    answerer = Answerer(options, model=model)

    def key(row: Row) -> str:
        return answerer.keys([row])[row.id].row

    first = rows[0]
    copy = tmp_path / "copy.mp4"
    shutil.copy(first.clip, copy)
    os.utime(copy, ns=(1, 1))
    assert key(Row("9", copy, first.question)) == key(first)
    others = [
        Row("1", rows[3].clip, first.question + " "),
        Row("1", first.clip, first.question, choices=("a", "b")),
        Row("1", first.clip, first.question, end=0.3),
        Row("1", first.clip.with_name("none.mp4"), first.question),
    ]
    assert len({key(row) for row in [first, *others]}) == 5


def test_the_content_of_a_large_file(tmp_path):
    path = tmp_path / "large"
    body = bytearray(os.urandom(WHOLE) + b"tail")
    path.write_bytes(body)
    first = content_of(path)
    assert content_of(path.rename(tmp_path / "renamed")) == first
    path.write_bytes(body + b"!")
    assert content_of(path) != first
    for place in (0, len(body) // 2, len(body) - 1):
        other = bytearray(body)
        other[place : place + 70_000] = bytes(len(other[place : place + 70_000]))
        path.write_bytes(other)
        assert content_of(path) != first
    assert content_of(tmp_path / "none") is None


def test_settings_are_a_key_and_the_device_is_none(options, model):
    from dataclasses import replace

    first = Answerer(options).setup
    assert Answerer(replace(options, load=replace(options.load, device="cuda"))).setup == first
    other = Answerer(replace(options, method=MethodChoice("uniform", 0.4))).setup
    assert other.key != first.key
    assert other.first_difference(first.settings) == ("method.budget", 0.4, 0.5)
    assert Answerer(replace(options, system="Be brief.")).setup.key != first.key


@pytest.mark.parametrize("name", ["uniform", "none", "omnidrop", "uniform+omnidrop"])
def test_a_choice_gives_back_the_method(name):
    budget = {} if name == "none" else {"budget": 0.4}
    method = get_method(name, **budget)
    choice = pickle.loads(pickle.dumps(MethodChoice.of(method)))
    assert choice.method(SAFE) == method


def test_a_choice_without_a_name_is_the_models():
    assert MethodChoice().method(SAFE) is None
    assert MethodChoice(budget=0.2).method(SAFE).budget == 0.2
    with pytest.raises(UsageError, match="no method"):
        MethodChoice("nothing").method(SAFE)


@pytest.mark.slow
def test_a_clip_is_noted_while_it_is_read_ahead_unless_it_is_a_suspect(
    model, options, rows, tmp_path
):
    def most_at_once(begun: Begun) -> int:
        with begun:
            counts = [
                len(begun._reading)
                for _ in Answerer(options, Hooks(begun=begun), model=model).answer(rows[:1])
            ]
            together: list[int] = []
            answerer = Answerer(
                options,
                Hooks(begun=begun, on_row=lambda row: together.append(_settled(begun))),
                model=model,
            )
            counts += [_settled(begun) for _ in answerer.answer([rows[0], rows[3]])]
            assert not begun._reading
            return max(counts + together)

    def _settled(begun: Begun) -> int:
        import time

        time.sleep(0.2)  # the other thread has a clip of half a second to open
        return len(begun._reading)

    assert most_at_once(Begun(tmp_path / "one")) == 2
    begun = Begun(tmp_path / "two")
    begun._notes["some clip"] = _Note(1, suspect=True)
    assert most_at_once(begun) == 1
