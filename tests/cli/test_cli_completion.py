"""What shells offer: commands, options, names of models and methods, clips."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes import environment

from omnidrop.models.family import aliases
from omnidrop_cli import completion


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.mp4", "my clip.mkv", "notes.txt", ".hidden.mp4", "deep/b.wav", "dir/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    return tmp_path


@pytest.fixture
def offered(run, monkeypatch):
    """What bash is offered for a line, with the cursor at its end."""

    def call(line: str) -> list[str]:
        monkeypatch.setenv("_OMNIDROP_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        code, out, err = run()
        assert (code, err) == (0, "")
        return [line for line in out.splitlines() if line]

    return call


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("omnidrop con", ["config"]),
        ("omnidrop a", ["ask", "a.mp4"]),
        ("omnidrop a.mp4 --dtype fl", ["float32", "float16"]),
        ("omnidrop ask ", ["a.mp4", "deep/", "dir/", r"my\ clip.mkv"]),
        ("omnidrop ask a.mp4 de", ["deep/b.wav"]),
        ("omnidrop ask dir", ["dir/"]),
        ("omnidrop profile my", [r"my\ clip.mkv"]),
        ('omnidrop ask "my', ["my clip.mkv"]),
        ("omnidrop ask .h", [".hidden.mp4"]),
        ("omnidrop ask no", []),  # the shell offers files
        ("omnidrop ask a.mp4 --model ", ["demo", *aliases()]),
        ("omnidrop ask a.mp4 --model 3", ["3b"]),
        ("omnidrop ask a.mp4 --method fas", ["fastv"]),
        ("omnidrop ask a.mp4 --method uniform+omnidrop-", ["uniform+omnidrop-auto"]),
        ("omnidrop profile a.mp4 --method omnidrop,fas", ["omnidrop,fastv"]),
        ("omnidrop ask a.mp4 --preset paper-3", ["paper-3b-20", "paper-3b-30"]),
        ("omnidrop ask a.mp4 --report f", ["full"]),
        ("omnidrop ask a.mp4 --device m", ["mps"]),
        ("omnidrop eval q.jsonl --score l", ["logits"]),
        ("omnidrop ask --help", ["--help", "--help-all"]),
        ("omnidrop config u", ["unset"]),
        ("omnidrop config set max-p", ["max-pixels"]),
        ("omnidrop config set ask.max-p", ["ask.max-pixels"]),
        ("omnidrop config set ask.model d", ["demo"]),
        ("omnidrop config set offline ", ["true", "false"]),
        ("omnidrop config get ask.offline ", []),
    ],
)
def test_bash(here, offered, line, expected) -> None:
    assert sorted(offered(line)) == sorted(expected)


def test_models_in_the_hubs_cache(here, offered) -> None:
    for name, kind in (("Qwen--Mine", "qwen2_5_omni"), ("org--Other", "bert")):
        folder = here / "hub-home" / "hub" / f"models--{name}" / "snapshots" / "1"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    assert offered("omnidrop ask a.mp4 --model Q") == ["Qwen/Mine"]
    assert offered("omnidrop ask a.mp4 --model o") == []


def test_options_with_names_of_their_own_offer_what_the_library_takes() -> None:
    from omnidrop.evaluation.runner import RunOptions
    from omnidrop.options import LoadOptions

    for name, field in (("--device", "device"), ("--dtype", "dtype"), ("--attn", "attention")):
        for word in completion.VALUES[name](""):
            LoadOptions(**{field: word})
    for name, field in (("--score", "score"), ("--style", "style")):
        for word in completion.VALUES[name](""):
            RunOptions(**{field: word})


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish(here, run, monkeypatch, shell) -> None:
    monkeypatch.setenv("_OMNIDROP_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    lines = {
        "omnidrop ask my": "my clip.mkv",
        "omnidrop ask --preset paper-3b-2": "paper-3b-20",
        "omnidrop estimate a.mp4 --model d": "demo",
    }
    for line, expected in lines.items():
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        code, out, err = run()
        assert (code, err) == (0, "")
        assert expected in out
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "omnidrop ask no")
    code, out, _ = run()
    assert out.strip() == ("_files" if shell == "zsh" else "")


def test_nothing_heavy_is_imported(here) -> None:
    code = (
        "import os, sys; from omnidrop_cli.main import run\n"
        "for line in ('omnidrop ask a.mp4 --model ', 'omnidrop ask a.mp4 --method ',\n"
        "             'omnidrop ask a.mp4 --preset ', 'omnidrop config set method '):\n"
        "    os.environ['COMP_WORDS'] = line\n"
        "    os.environ['COMP_CWORD'] = str(len(line.split()))\n"
        "    assert run([]) == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'rich', 'av', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=here,
        env=environment(_OMNIDROP_COMPLETE="complete_bash"), check=True,
    )  # fmt: skip
    assert done.stderr.strip() == "[]"
    assert "fastv" in done.stdout.splitlines()
