"""The config file: where it is, what it may hold, what goes before it, how it is changed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import ROOT, environment

from omnidrop.errors import UsageError
from omnidrop_cli.config import GIVE_WAY, config_path, option_of
from omnidrop_cli.files.toml_edit import remove_key, set_key


@pytest.fixture
def file() -> Path:
    """The config file in use; its folder is there, the file is not."""
    path = config_path()
    path.parent.mkdir(parents=True)
    return path


def budget(run, clip, *words: str) -> float:
    code, out, err = run("ask", clip, "What?", "--json", *words)
    assert code == 0, err
    return json.loads(out)["trace"]["asked_budget"]


def test_where_it_is(run, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert run("config", "path") == (0, f"{tmp_path}/omnidrop/config.toml\n", "")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, folder in (("linux", ".config"), ("darwin", "Library/Application Support")):
        monkeypatch.setattr(sys, "platform", platform)
        assert config_path() == tmp_path / folder / "omnidrop" / "config.toml"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("APPDATA", str(tmp_path / "Roaming"))
    assert config_path() == tmp_path / "Roaming" / "omnidrop" / "config.toml"
    monkeypatch.setenv("OMNIDROP_CONFIG", str(tmp_path / "mine.toml"))
    assert config_path() == tmp_path / "mine.toml"


def test_flags_before_environment_before_file_before_default(
    run, fake, clip, file, monkeypatch
) -> None:
    assert budget(run, clip) == 0.3
    file.write_text('budget = 0.25\nmodel = "3b"\n')
    assert budget(run, clip) == 0.25
    file.write_text("budget = 0.25\n[ask]\nbudget = '20%'\n[eval]\nbudget = [0.7]\n")
    assert budget(run, clip) == 0.2  # the command's own
    monkeypatch.setenv("OMNIDROP_BUDGET", "0.15")
    assert budget(run, clip) == 0.15
    assert budget(run, clip, "--budget", "10%") == 0.1


def test_every_kind_of_value(run, fake, clip, file, monkeypatch) -> None:
    file.write_text(
        "model = '3b'\nmax_new_tokens = 5\n[ask]\nmethod = 'omnidrop'\n"
        "set = ['diversity=0', 'rows=last']\n"
        "choices = ['red, white', 'blue']\njsonl = true\nstart = 00:00:00.25\n"
    )
    code, out, err = run("ask", clip, "What?", "--fps", "4")
    assert (code, err) == (0, "")
    assert json.loads(out)["text"] == "red, white"
    assert fake.log[0] == "load 3b"
    # A repeatable option is read from the environment line by line, before the file.
    monkeypatch.setenv("OMNIDROP_SET", "no_such=1")
    assert "has no setting 'no_such'" in run("ask", clip, "What?")[2]


def test_what_is_typed_puts_aside_what_it_excludes(run, fake, clip, file) -> None:
    file.write_text("budget = 0.2\n[ask]\njsonl = true\n4bit = true\n")
    assert run("ask", clip, "What?", "--preset", "paper-7b-30", "--json", "--8bit")[0] == 0
    code, _, err = run("ask", clip, "What?", "--fit-latency", "2s", "--method", "none")
    assert code == 2
    assert "keeps every token" in err  # what is typed is still checked
    file.write_text("preset = 'paper-7b-30'\nno-audio = true\n")
    assert budget(run, clip, "--budget", "0.5", "--audio-track", "0") == 0.5


def test_what_gives_way_are_options() -> None:
    import typer.main

    from omnidrop_cli.app import app

    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    for key in {*GIVE_WAY, *(key for keys in GIVE_WAY.values() for key in keys)}:
        assert any(option_of(command, key) for command in commands), key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle = '3b'", "Unknown key 'modle'. Did you mean model"),
        ("[ask]\nbugdet = 1", "Unknown key 'ask.bugdet'. Did you mean budget"),
        ("[aks]\nbudget = 1", "There is no command 'aks', so no key"),
        ("ask = 1", "'ask' is a command: [ask]."),
        ("question = 'Why?'", "'question' is for the command line alone."),
        ("x ==", "The config file is not TOML: Invalid value (at line 1, column 4)"),
        ("json = 'yes'", 'json is "yes". Write true or false.'),
        ("fps = true", "fps is true. It takes a value, N."),
        ("[ask.deep]\nbudget = 1", "Unknown key 'ask.deep'."),
        ("fps = 'fast'", "'--fps': Input should be a valid number"),
        ("start = '1:75'", "--start: '1:75' is not a time."),
        ("budget = 3", "--budget 3 is not valid"),
        ("method = 'fastw'", "There is no method 'fastw'. Did you mean fastv"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_file(run, fake, clip, file, text, said) -> None:
    file.write_text(text)
    code, out, err = run("ask", clip, "What?")
    assert (code, out) == (2, "")
    assert said in err
    assert str(file) in err
    # It can be looked at all the same, and mended.
    assert run("ask", "--help")[0] == run("config", "path")[0] == 0
    assert run("--version")[0] == 0


def test_the_source_of_a_bad_value_is_named(run, fake, clip, file, monkeypatch) -> None:
    file.write_text("budget = 0.2\n")
    assert str(file) not in run("ask", clip, "What?", "--fps", "0")[2]
    assert str(file) not in run("ask", clip, "What?", "--budget", "2")[2]
    monkeypatch.setenv("OMNIDROP_BUDGET", "2")
    assert "(--budget 2 is from OMNIDROP_BUDGET.)" in run("ask", clip, "What?")[2]
    monkeypatch.setenv("OMNIDROP_FPS", "fast")
    assert "(--fps fast is from OMNIDROP_FPS.)" in run("ask", clip, "What?")[2]


def test_a_file_that_is_named_must_be_there(run, fake, clip, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("OMNIDROP_CONFIG", str(tmp_path / "none.toml"))
    assert "There is no such file; OMNIDROP_CONFIG names it." in run("ask", clip, "What?")[2]
    monkeypatch.setenv("OMNIDROP_CONFIG", os.devnull)
    assert run("ask", clip, "What?")[0] == 0
    code, _, err = run("config", "set", "model", "3b")
    assert code == 2
    assert "This is no file to write to." in err
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_set_get_unset_list(run, fake, clip) -> None:
    path = config_path()
    code, out, err = run("config")
    assert (code, out) == (0, "")
    assert err == f"omnidrop: {path}, which does not exist\n"
    assert run("config", "set", "model", "3b")[0] == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run("config", "set", "ask.set", "rows=last", "beta=2")[0] == 0
    assert run("config", "set", "ask.4bit", "yes")[0] == 0
    assert run("config", "set", "ask.max_pixels", "50176")[0] == 0
    code, out, err = run("config", "set", "eval.budget", "50%,20%")
    assert (code, out, err) == (0, "", f'omnidrop: eval.budget = "50%,20%" in {path}\n')
    assert run("config", "list")[1].splitlines() == [
        'model = "3b"',
        'ask.set = ["rows=last", "beta=2"]',
        "ask.4bit = true",
        "ask.max-pixels = 50176",
        'eval.budget = "50%,20%"',
    ]
    found = json.loads(run("config", "--json")[1])
    assert found["schema"] == "omnidrop.config/1"
    assert found["values"]["ask.4bit"] is True
    assert run("config", "get", "model")[1] == "3b\n"
    assert run("config", "get", "ask.model")[1] == "3b\n"  # holds for ask too
    assert run("config", "get", "ask.set")[1] == "rows=last\nbeta=2\n"
    assert run("config", "unset", "ask.max-pixels")[0] == 0
    code, out, err = run("config", "get", "ask.max-pixels")
    assert (code, out) == (2, "")
    assert "ask.max-pixels is not set." in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set", "modle", "3b"), "Unknown key 'modle'. Did you mean model"),
        (("set", "aks.model", "3b"), "Did you mean ask?"),
        (("set", "model"), "A value is missing. Type: omnidrop config set KEY VALUE"),
        (("set",), "A key is missing."),
        (("set", "model", "3b", "7b"), "model takes one value."),
        (("set", "budget", "2"), "--budget 2 is not valid"),
        (("set", "budget", "auto"), "does not suit profile, estimate, eval, calibrate"),
        (("set", "fps", "fast"), "'--fps': Input should be a valid number"),
        (("set", "device", "gpu"), "Unknown --device 'gpu'."),
        (("set", "json", "maybe"), "json is on or off."),
        (("set", "keep-mass", "0.5"), "--keep-mass goes with --budget auto."),
        (("get", "model"), "model is not set."),
        (("unset", "modle"), "modle is not set."),
        (("path", "x"), "There are too many words. Type: omnidrop config path"),
        (("gte", "model"), "There is no action 'gte'. Did you mean get?"),
    ],
)
def test_what_config_refuses(run, words, said) -> None:
    code, out, err = run("config", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not config_path().exists()


MINE = """# my settings
model = "3b"   # fast enough

fps = [
  4,  # unused
]

# for questions
[ask]
budget = 0.2
report = 'brief'

[eval]  # long runs
limit = 10
"""


def test_a_change_keeps_everything_else() -> None:
    text = set_key(MINE, "", "model", '"7b"')
    assert text == MINE.replace('"3b"', '"7b"')
    text = set_key(MINE, "", "fps", "2")
    assert text == MINE.replace("fps = [\n  4,  # unused\n]\n", "fps = 2\n")
    text = set_key(MINE, "", "seed", "1")
    assert text == MINE.replace("# for questions", "seed = 1\n\n# for questions")
    text = set_key(MINE, "ask", "fps", "1")
    assert text == MINE.replace("'brief'\n", "'brief'\nfps = 1\n")
    text = set_key(MINE, "batch", "retry", "true")
    assert text == MINE + "\n[batch]\nretry = true\n"
    text = remove_key(MINE, "ask", "report")
    assert text == MINE.replace("report = 'brief'\n", "")
    assert set_key("", "ask", "fps", "1") == "[ask]\nfps = 1\n"
    assert set_key("max_pixels = 1", "", "max-pixels", "2") == "max-pixels = 2\n"


@pytest.mark.parametrize(
    "text", ["ask = { budget = 0.2 }\n", "ask.budget = 0.2\n", '[ask]\n"bud\\u0067et" = 0.2\n']
)
def test_what_cannot_be_changed_line_by_line_is_left_alone(text) -> None:
    with pytest.raises(UsageError, match="keeps 'budget' from being changed here"):
        set_key(text, "ask", "budget", "0.3")
    with pytest.raises(UsageError, match="keeps 'budget' from being changed here"):
        remove_key(text, "ask", "budget")


def test_the_file_keeps_its_rights_and_its_place(run, tmp_path, file) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text(MINE)
    real.chmod(0o644)
    file.symlink_to(real)
    assert run("config", "set", "model", "7b")[0] == 0
    assert file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o644
    assert real.read_text() == MINE.replace('"3b"', '"7b"')
    assert [p.name for p in tmp_path.iterdir()] == ["dotfiles.toml"]


def test_a_file_that_is_not_toml_is_not_touched(run, file) -> None:
    file.write_text("my notes")
    for words in (("set", "model", "3b"), ("unset", "model"), ("list",)):
        code, _, err = run("config", *words)
        assert code == 2
        assert "is not TOML" in err
    assert file.read_text() == "my notes"


def test_doctor_names_the_file(run, file) -> None:
    def finding() -> dict[str, str]:
        (found,) = (
            f for f in json.loads(run("doctor", "--json")[1])["findings"] if f["name"] == "config"
        )
        return found

    assert finding()["mark"] == "ok"
    assert finding()["value"] == f"{file}, which does not exist: nothing is set"
    file.write_text("model = '3b'\n[ask]\nfps = 1\n")
    assert finding()["value"] == f"{file}: 2 values"
    file.write_text("modle = '3b'\n")
    found = finding()
    assert (found["mark"], found["remedy"].split("?")[0]) == (
        "wrong", "Did you mean model or method"
    )  # fmt: skip


def test_config_imports_nothing_heavy(file) -> None:
    file.write_text("model = '3b'\n")
    code = (
        "import sys; from omnidrop_cli.main import run\n"
        "assert run(['config', 'set', 'ask.fps', '1']) == run(['config']) == 0\n"
        "assert run(['ask', 'none.mp4', 'What?']) == 3\n"
        "print(sorted({'torch', 'numpy', 'rich', 'av'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=ROOT
    )
    assert done.stderr.splitlines()[-1] == "[]", done.stderr
