"""Every example of every help page works as it stands, in a folder with the samples."""

from __future__ import annotations

import glob
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import typer.main
from fakes import ROOT

from omnidrop_cli.app import HELP, app

GROUP = typer.main.get_command(app)

#: What an example names that a newcomer does not have: a model to download, clips of their own.
ELSEWHERE = ("--model 3b", "--model 7b", "models get ", "worldsense:", "avsynth")
#: Commands that load no weights, whichever model they name.
UNLOADED = ("estimate", "--dry-run")


def examples(text: str) -> Iterator[str]:
    """Yield the commands below "Examples:", continued lines joined."""
    _, _, rest = text.partition("Examples:\n")
    block, _, _ = rest.partition("\n\n")
    for line in block.replace("\\\n", " ").splitlines():
        yield " ".join(line.split())


PAGES = {"omnidrop": HELP, **{name: command.help or "" for name, command in GROUP.commands.items()}}
ALL = [(page, line) for page, text in PAGES.items() for line in examples(text)]


def is_run(line: str) -> bool:
    return any(word in line for word in UNLOADED) or not any(word in line for word in ELSEWHERE)


RUN = [(page, [line for p, line in ALL if p == page and is_run(line)]) for page in PAGES]
#: The first example of this page runs until the last one ends it.
SERVE = dict(RUN)["serve"]


def test_every_page_has_examples() -> None:
    assert all(any(page == name for page, _ in ALL) for name in PAGES)
    assert len(ALL) > 35


@pytest.mark.parametrize(("page", "line"), ALL, ids=lambda value: value[:60])
def test_the_options_of_an_example_exist(page: str, line: str) -> None:
    """The command and its options are parsed; nothing is read or loaded."""
    words = shlex.split(line.rpartition("| ")[2])
    assert words[0] == "omnidrop"
    command = GROUP.commands[words[1]]
    spelled = {name for parameter in command.params for name in parameter.opts}
    for word in words[2:]:
        if word.startswith("-") and word != "-":
            assert word.partition("=")[0] in spelled, word
    assert len(words) > 1


@pytest.mark.parametrize("line", [line for _, line in ALL], ids=lambda value: value[:60])
def test_an_example_names_files_that_are_there_or_another_model(line: str) -> None:
    named = [word for word in shlex.split(line) if word.endswith((".mp4", ".jsonl", ".csv"))]
    made = {"answers.jsonl", "mine.jsonl", "b.jsonl", "b.csv", "p.jsonl", "six.jsonl", "kept.mp4"}
    strange = [
        word for word in named if word not in made and not glob.glob(word, root_dir=str(ROOT))
    ]
    assert not strange or any(word in line for word in ELSEWHERE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a newcomer has it: the samples, and a command called omnidrop."""
    (tmp_path / "samples").symlink_to(ROOT / "samples", target_is_directory=True)
    command = tmp_path / "bin" / "omnidrop"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m omnidrop_cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


def check(page: str, line: str, code: int, out: str, err: str) -> None:
    assert code == 0, f"{line}\n{out}\n{err}"
    assert "Traceback" not in err
    assert "answer is a guess" not in err or page == "profile", line


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the examples are written for a POSIX shell")
def test_the_first_examples_run_in_a_shell(folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMNIDROP_")}
    environment |= {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "no-models"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    (page, lines) = RUN[0]
    assert lines
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        check(page, line, done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the examples are written for a POSIX shell")
@pytest.mark.parametrize(
    ("page", "lines"), [pytest.param(p, ls, id=p) for p, ls in RUN[1:] if p != "serve"]
)
def test_the_examples_of_a_page_run_one_after_another(
    page, lines, run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a shell would start them, but in this process: a process each takes longer to start."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "no-models"))
    assert lines
    for line in lines:
        before, _, command = line.rpartition("| ")
        piped = subprocess.run(["bash", "-c", before or ":"], capture_output=True, check=True)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped.stdout), "utf-8"))
        name, *words = shlex.split(command)
        assert name == "omnidrop"
        check(page, line, *run(*(w for word in words for w in sorted(glob.glob(word)) or [word])))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such sockets")
def test_the_examples_of_serve(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one stays, and the others ask it and end it."""
    first, *others = SERVE
    assert others
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "omnidrop_cli", *shlex.split(first)[1:]]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stderr is not None
            assert "is served at" in serving.stderr.readline()
            for line in others:
                check("serve", line, *run(*shlex.split(line)[1:]))
            assert serving.wait(30) == 0
        finally:
            serving.kill()


def test_parsing_examples() -> None:
    text = "Do.\n\n\b\nExamples:\n  omnidrop a \\\n      --b\n  omnidrop c\n\nMore.\n"
    assert list(examples(text)) == ["omnidrop a --b", "omnidrop c"]
