"""`omnidrop models`, `doctor` and `chunks`."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from omnidrop.errors import UsageError
from omnidrop_cli import backend
from omnidrop_cli.commands import doctor_checks as checkup
from omnidrop_cli.options.common import DropFlags
from omnidrop_cli.terminal import columns as tables


def test_models(run) -> None:
    code, out, err = run("models")
    assert (code, err) == (0, "")
    for part in ("demo", "Qwen/Qwen2.5-Omni-3B", "omnidrop", "fastv", "paper-7b-30", "budget=0.3"):
        assert part in out
    found = json.loads(run("models", "--json")[1])
    assert {m["alias"] for m in found["models"]} >= {"demo", "3b", "7b"}
    assert {m["name"] for m in found["methods"]} >= {"none", "omnidrop", "random"}
    assert len(found["presets"]) >= 4


def test_doctor(run) -> None:
    code, out, err = run("doctor", "--json")
    found = json.loads(out)["findings"]
    names = {f["name"] for f in found}
    assert {"omnidrop", "python", "torch", "cpu", "memory", "codecs", "cache"} <= names
    assert code == (4 if any(f["mark"] == "wrong" for f in found) else 0)
    assert err == ""


def test_doctor_names_what_is_wrong(run, monkeypatch) -> None:
    def broken():
        raise OSError("libcuda.so: no such file")

    findings = [checkup.Finding("ok", "a", "fine"), checkup.Finding("wrong", "b", "bad", "fix b")]
    monkeypatch.setattr(checkup, "checkup", lambda: findings)
    code, out, _ = run("doctor")
    assert code == 4
    assert "→ fix b" in out
    assert "1 thing wrong." in out
    monkeypatch.undo()
    for name in ("_versions", "_processor", "_devices", "_memory", "_quantising", "_codecs",
                 "_cache", "_screen"):  # fmt: skip
        monkeypatch.setattr(checkup, name, broken)
    assert all(f.mark == "wrong" for f in checkup.checkup())


def test_table_wraps_the_last_column() -> None:
    text = tables.table([("a", "one two three four"), ("bcd", "x")], indent=2, room=26)
    assert text == "  a    one two three four\n  bcd  x"
    text = tables.table([("a", "one two three four five")], room=24)
    assert text == "a  one two three four\n   five"
    assert tables.table([]) == ""


@dataclass
class Opened:
    notices: tuple[str, ...] = ("The file is cut.",)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_chunks(run, clip, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(backend, "open_clip", lambda *given: Opened())
    monkeypatch.setattr(backend, "export_chunks", lambda clip, to: [to / "1.png", to / "1.wav"])
    out = tmp_path / "c"
    code, stdout, err = run("chunks", clip, "--out", out)
    assert (code, stdout) == (0, f"{out}/1.png\n{out}/1.wav\n")
    assert err == "omnidrop: notice: The file is cut.\n"
    assert run("chunks", clip, "--out", out, "--quiet")[2] == ""
    assert run("chunks", clip, "--out", clip)[0] == 2
    assert run("chunks", "none.mp4", "--out", out)[0] == 3
    assert run("chunks", clip)[0] == 2


def test_methods_from_flags() -> None:
    made = backend.method(DropFlags())
    assert (made.name, made.budget) == ("omnidrop", 0.3)
    assert backend.method(DropFlags(method="none")).budget == 1.0
    assert backend.method(DropFlags(method="random", budget=0.5)).name == "random"
    made = backend.method(DropFlags(preset="paper-7b-20", settings=["diversity=0"]))
    assert (made.budget, made.diversity, made.solve) == (0.2, 0, False)
    for wrong in (
        DropFlags(method="nothing"),
        DropFlags(preset="nothing"),
        DropFlags(method="none", budget=0.5),
        DropFlags(settings=["no_such=1"]),
        DropFlags(settings=["rows=everything"]),
    ):
        with pytest.raises(UsageError):
            backend.method(wrong)
