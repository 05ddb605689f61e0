"""Help and version: plain, with examples, and quick."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys

import fakes
import pytest
from fakes import ROOT, environment

from omnidrop_cli.options.short import SHORT

OPTIONS = """
--model -m --budget --method --preset --question -q --choices --start --end --fps --max-frames
--max-pixels --still --square-pixels --no-audio --no-video --audio --video-track --audio-track
--system --max-new-tokens --temperature
--top-p --seed --device --dtype --4bit --8bit --attn --offline --json --jsonl --report --save
--quiet --debug --set --force
"""
COMMANDS = (
    "ask",
    "chat",
    "profile",
    "estimate",
    "eval",
    "calibrate",
    "batch",
    "report",
    "serve",
    "chunks",
    "models",
    "doctor",
    "config",
    "train-a2v",
    "train-selector",
)
HEAVY = "torch,transformers,rich,av,numpy,omnidrop.pruning,omnidrop.engine,omnidrop.clip.probe"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(run, command) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: omnidrop {command} [OPTIONS]" in out
    assert f"  Examples:\n    omnidrop {command}" in out
    assert max(map(len, out.splitlines())) <= 100
    assert run(command, "-h")[1] == out


def test_help_of_the_program(run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for part in (
        'omnidrop ask samples/duet.mp4 "What instrument plays first?"',
        "Exit codes: 0 success",
    ):
        assert part in out
    found = re.findall(r"^  (\S+)  ", out.split("Commands:")[1], re.MULTILINE)
    assert tuple(found) == COMMANDS
    assert run()[:2] == (0, out)


def test_help_names_every_option_of_ask(run) -> None:
    out = run("ask", "--help-all")[1]
    for name in OPTIONS.split():
        assert f" {name}" in out
    assert "none, brief, full" in " ".join(out.split())


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("omnidrop pro", {"profile"}),
        ("omnidrop ask --fit-", {"--fit-latency", "--fit-memory", "--fit-pixels", "--fit-fps"}),
        ("omnidrop train-a2v --st", {"--steps", "--still"}),
    ],
)
def test_shells_complete_commands_and_options(run, monkeypatch, typed, expected) -> None:
    monkeypatch.setenv("_OMNIDROP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    code, out, err = run()
    assert (code, err) == (0, "")
    assert set(out.split()) == expected


def test_the_completion_script_is_shown(run, monkeypatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    code, out, _ = run("--show-completion", "bash")
    assert code == 0
    assert "_OMNIDROP_COMPLETE=complete_bash" in out
    assert out.rstrip().endswith("omnidrop")


def test_version(child, run) -> None:
    import omnidrop

    done = child("--version")
    assert (done.returncode, done.stdout) == (0, f"omnidrop {omnidrop.__version__}\n")
    assert child("-V").stdout == done.stdout
    assert run("-V")[1] == run("--version")[1] == done.stdout
    assert run("ask", "--version")[0] == 2


@pytest.mark.parametrize("command", sorted(SHORT))
def test_the_short_help_has_a_line_for_each_option(run, command) -> None:
    """Ten options or so, all of them options of the command, on a screen of 80 columns."""
    out = run(command, "--help")[1]
    lines = re.split("ptions:\n", out)[1].splitlines()
    lines = lines[: lines.index("")]
    assert [line for line in lines if not line.startswith(("  -", "  S", "  M"))] == []
    assert len(lines) == len(SHORT[command]) <= 12
    for name, text in SHORT[command].items():
        assert [line for line in lines if name in line.split(maxsplit=2)[:2] and text in line]
    assert out.splitlines()[-1].endswith(f"options, and more: omnidrop {command} --help-all")
    everything = run(command, "--help-all")[1]
    assert len(everything.splitlines()) > len(out.splitlines())
    assert {name for name in SHORT[command] if name not in everything} == set()


def test_a_command_with_few_options_has_one_help_page(run) -> None:
    assert run("models", "--help")[1] == run("models", "--help-all")[1]


def test_everything_about_every_command(run) -> None:
    code, out, _ = run("--help-all")
    assert code == 0
    assert out.startswith(run("--help")[1].rstrip())
    for command in COMMANDS:
        assert run(command, "--help-all")[1].rstrip() in out


@pytest.mark.parametrize(
    "words",
    [
        ("CLIP", "What plays?"),
        ("CLIP", "-q", "What plays?"),
        ("-q", "What plays?", "CLIP"),
        ("--budget=30%", "CLIP", "What plays?"),
        ("-b.3", "CLIP", "What plays?"),
        ("What plays?", "CLIP"),
        ("What", "plays?", "CLIP"),
        ("--", "CLIP", "What plays?"),
    ],
)
def test_a_question_needs_no_command(run, fake, clip, words) -> None:
    code, out, _ = run(*(clip if word == "CLIP" else word for word in words))
    assert (code, out) == (0, fakes.TEXT + "\n")
    assert fake.log[-2] == "ask concert.mp4 What plays?"


@pytest.mark.slow
def test_clips_from_stdin_need_no_command(clip) -> None:
    done = subprocess.run(
        [sys.executable, str(fakes.HERE / "fakes.py"), "-", "What plays?"],
        input=f"{clip}\n", capture_output=True, text=True, env=environment(), cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stdout == fakes.TEXT + "\n"


def test_a_command_goes_before_a_file_of_its_name(run, fake, clip, monkeypatch) -> None:
    monkeypatch.chdir(clip.parent)
    clip.with_name("models").write_bytes(clip.read_bytes())
    code, out, _ = run("models")
    assert code == 0
    assert out.startswith("Models (--model)")
    for words in (("ask", "models", "What?"), ("./models", "What?")):
        assert run(*words) == (0, fakes.TEXT + "\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("aks", "clip.mp4", "What?"), "No such command 'aks'. Did you mean 'ask'?"),
        (("Profile", "clip.mp4"), "Did you mean 'profile'?"),
        (("evaluate", "q.jsonl"), "Did you mean 'eval'?"),
        (("nothing",), "No such command 'nothing'."),
        (("--verison",), "No such option: --verison"),
        (("none.mp4",), "none.mp4: There is no such file."),
        (("clip", "What plays?"), "clip: There is no such file."),
    ],
)
def test_a_wrong_command_is_no_clip(run, fake, words, said) -> None:
    code, out, err = run(*words)
    assert (code, out) == (3 if "no such file" in said.lower() else 2, "")
    assert said in err


def test_help_as_a_command(run) -> None:
    assert run("help") == run("--help")
    assert run("help", "ask") == run("ask", "--help")


def started(*words: str) -> float:
    """Return the CPU seconds, user and system, that Python takes, called with these words."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *words],
        stdout=subprocess.DEVNULL, env=environment(), cwd=ROOT, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.mark.parametrize(
    ("words", "limit"), [(("--version",), 1.5), (("--help",), 4.5), (("ask", "--help"), 7.0)]
)
def test_help_and_version_answer_at_once(words, limit) -> None:
    # In units of a bare `import asyncio`, since machines differ and may be busy: measured 0.4, 2.8
    # and 4.3 of them, which take 0.04 s on a quick machine and 0.08 on a slow one.
    unit, took = (
        min(started(*call) for _ in range(3))
        for call in (("-c", "import asyncio"), ("-m", "omnidrop_cli", *words))
    )
    assert took <= limit * unit


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from omnidrop_cli.main import run; run(['ask', '--help']);"
        f"print(sorted(set('{HEAVY}'.split(',')) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env=environment(), cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stderr.strip() == "[]"


def test_mistakes_are_found_before_torch_is_imported(clip) -> None:
    code = (
        "import sys; from omnidrop_cli.main import run\n"
        f"for more in (['--budget', '2'], ['--save', 'x.doc'], ['--fps', '0'], ['-q', '']):\n"
        f"    assert run(['ask', {str(clip)!r}, 'What?', *more]) == 2\n"
        f"assert run(['ask', 'none.mp4', 'What?']) == 3\n"
        f"print(sorted(set('{HEAVY}'.split(',')) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env=environment(), cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
    assert len(done.stderr.splitlines()) == 5


def test_the_module_runs_like_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "omnidrop_cli", "ask"],
        capture_output=True, text=True, env=environment(), cwd=os.sep, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("omnidrop: error: A clip and a question are missing.")
