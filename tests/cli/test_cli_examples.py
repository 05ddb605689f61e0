"""Every example of every help page works as it stands, in a folder with the samples."""

from __future__ import annotations

import glob
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    made = {"answers.jsonl", "more.jsonl", "mine.jsonl", "kept.mp4"}
    strange = [
        word for word in named if word not in made and not glob.glob(word, root_dir=str(ROOT))
    ]
    assert not strange or any(word in line for word in ELSEWHERE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a newcomer has it: the samples, and a command called omnidrop."""
    place = tmp_path_factory.mktemp("newcomer")
    (place / "samples").symlink_to(ROOT / "samples", target_is_directory=True)
    command = place / "bin" / "omnidrop"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m omnidrop_cli "$@"\n')
    command.chmod(0o755)
    return place


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the examples are written for a POSIX shell")
@pytest.mark.parametrize(("page", "lines"), RUN, ids=[page for page, _ in RUN])
def test_the_examples_of_a_page_run_one_after_another(page, lines, folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMNIDROP_")}
    environment |= {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "no-models"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    place = folder / page
    place.mkdir()
    (place / "samples").symlink_to(folder / "samples", target_is_directory=True)
    assert lines
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "answer is a guess" not in done.stderr or page == "profile", line


def test_parsing_examples() -> None:
    text = "Do.\n\n\b\nExamples:\n  omnidrop a \\\n      --b\n  omnidrop c\n\nMore.\n"
    assert list(examples(text)) == ["omnidrop a --b", "omnidrop c"]
