"""The lmms-eval adapter, on a stand-in for the parts of lmms-eval that it touches.

The stand-in has the names and call shapes of lmms-eval 0.6 and later: `lmms` with its three
abstract methods, `register_model`, `ModelManifest`, and requests whose `args` are (context,
generation settings, doc_to_visual, document number, task, split).
"""

from __future__ import annotations

import abc
import importlib
import sys
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from omnidrop.errors import UsageError
from omnidrop.evaluation import lmms as ours

ROOT = Path(__file__).parents[2]
CLIPS = [str(ROOT / "samples" / "duet.mp4"), str(ROOT / "samples" / "flash.mp4")]


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


class CacheHook:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def add_partial(self, *what: Any) -> None:
        self.told.append(what)


class Base(abc.ABC):
    is_simple = True

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.cache_hook = CacheHook()
        self.task_dict: dict[str, Any] = {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...
    @abc.abstractmethod
    def generate_until(self, requests): ...
    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...

    @classmethod
    def create_from_arg_string(cls, text: str, extra: dict[str, Any]):
        pairs = dict(pair.split("=") for pair in text.split(","))
        return cls(**pairs, **{k: v for k, v in extra.items() if v is not None})


@dataclass
class Request:
    args: tuple[Any, ...]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """Put the stand-in where lmms-eval would be; what is registered ends up in the dict."""
    found: dict[str, type] = {}

    def register_model(*names: str):
        def decorate(kind: type) -> type:
            assert issubclass(kind, Base)
            found.update(dict.fromkeys(names, kind))
            return kind

        return decorate

    modules = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Base},
        "lmms_eval.api.registry": {"register_model": register_model},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    for name, attributes in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    ours._adapter.cache_clear()
    yield found
    ours._adapter.cache_clear()


@pytest.fixture
def model(registered):
    made = ours.OmniDropLmms.create_from_arg_string(
        "pretrained=demo,method=random+random@omnidrop,schedule=step,device=cpu",
        {"batch_size": 1, "max_batch_size": None, "budget": 0.5},
    )
    documents = [{"clip": CLIPS[i % 2]} for i in range(4)]
    made.task_dict = {"music": {"test": documents}}
    return made


def request(number: int, text: str = "What instrument plays first?", **settings: Any) -> Request:
    return Request((text, settings, lambda doc: [doc["clip"]], number, "music", "test"))


def test_the_entry_point_leads_to_the_class(registered) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["lmms_eval.models"]["omnidrop"].partition(":")
    made = getattr(importlib.import_module(module), name)()
    assert made.model_id == "omnidrop"
    path, _, kind = made.simple_class_path.rpartition(".")
    found = getattr(importlib.import_module(path), kind)
    assert issubclass(found, Base)
    assert found.is_simple
    assert found is ours.OmniDropLmms


def test_register_uses_their_decorator(registered) -> None:
    assert ours.register() is registered["omnidrop"] is ours.OmniDropLmms


def test_without_lmms_eval_nothing_is_imported_until_asked() -> None:
    assert "lmms_eval" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="lmms_eval"):
        _ = ours.OmniDropLmms
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        _ = ours.Other


@pytest.mark.slow
def test_requests_are_answered_in_their_order_and_each_clip_is_opened_once(
    model, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    inner = model.asker.model.open
    monkeypatch.setattr(
        model.asker.model, "open", lambda path, o: opened.append(str(path)) or inner(path, o)
    )
    requests = [request(i, max_new_tokens=4) for i in range(4)]
    replies = model.generate_until(requests)
    assert opened == CLIPS
    assert replies[:2] == replies[2:]
    assert replies[0] in ("piano", "guitar", "violin", "flute", "trumpet", "drums", "organ")
    told = model.cache_hook.told
    assert [what[0] for what in told] == ["generate_until"] * 4
    assert {what[2] for what in told} == set(replies)


def test_arguments_reach_method_and_reading(model) -> None:
    assert model.asker.method.settings()["schedule.schedule"] == "step"
    assert model.asker.method.budget == 0.5
    assert model.model_name.startswith("demo-")
    assert str(model.device) == "cpu"


def test_generation_settings_are_kept(model) -> None:
    options, until = model.asker._options(
        {"max_new_tokens": 7, "temperature": 0.5, "top_p": None, "until": "\n", "num_beams": 1}
    )
    assert (options.max_new_tokens, options.temperature, options.top_p) == (7, 0.5, 1.0)
    assert until == ("\n",)
    options, _ = model.asker._options({"temperature": 0.7, "do_sample": False})
    assert options.temperature == 0.0
    with pytest.raises(UsageError, match="Beam search"):
        model.asker._options({"num_beams": 4})


def test_replies_end_where_they_are_told_to() -> None:
    assert ours.cut("flute\nand more", ["\n", ""]) == "flute"
    assert ours.cut("flute", ["."]) == "flute"


def test_what_is_not_one_clip_is_refused() -> None:
    for visuals in ([], ["a.mp4", "b.mp4"], [{"array": []}], [[]]):
        with pytest.raises(UsageError, match="One local clip"):
            ours.clip_of(visuals)
    assert ours.clip_of([["a.mp4"]]) == Path("a.mp4")


def test_other_uses_are_refused(registered, model, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="one by one"):
        ours.OmniDropLmms("demo", batch_size=4)
    with pytest.raises(NotImplementedError):
        model.loglikelihood([])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="One process"):
        ours.OmniDropLmms("demo")


def test_a_clip_that_cannot_be_read_stops_the_run(model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a clip, but long enough to look at" * 10)
    model.task_dict["music"]["test"][0] = {"clip": str(broken)}
    with pytest.raises(Exception, match=r"broken\.mp4"):
        model.generate_until([request(0)])
