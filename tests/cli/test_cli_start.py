"""Help and version: plain, with examples, and quick."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys

import pytest
from fakes import ROOT, environment

OPTIONS = """
--model -m --budget --method --preset --question -q --choices --start --end --fps --max-frames
--max-pixels --still --square-pixels --no-audio --no-video --audio --video-track --audio-track
--system --max-new-tokens --temperature
--top-p --seed --device --dtype --4bit --8bit --attn --offline --json --jsonl --report --save
--quiet --debug --set --force
"""
COMMANDS = (
    "ask",
    "profile",
    "estimate",
    "eval",
    "calibrate",
    "batch",
    "chunks",
    "models",
    "doctor",
    "train-a2v",
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
    out = run("ask", "--help")[1]
    for name in OPTIONS.split():
        assert f" {name}" in out
    assert "none|brief|full" in out


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
    assert run("ask", "--version")[0] == 2


def started(*words: str) -> float:
    """Return the CPU seconds, user and system, that a call takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "omnidrop_cli", *words],
        stdout=subprocess.DEVNULL, env=environment(), cwd=ROOT, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.mark.parametrize(
    ("words", "limit"), [(("--version",), 0.3), (("--help",), 0.3), (("ask", "--help"), 0.5)]
)
def test_help_and_version_answer_at_once(words, limit) -> None:
    # The best of three, for the machine may be busy: measured alone 0.03, 0.12 and 0.2 seconds.
    assert min(started(*words) for _ in range(3)) <= limit


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
