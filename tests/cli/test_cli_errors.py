"""Each mistake gives one paragraph, its exit code, and no traceback."""

from __future__ import annotations

import json
import os
import sys

import pytest

from omnidrop_cli.options import parsing as values


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "A clip and a question are missing."),
        (("CLIP",), 2, "A question is missing."),
        (("What plays?",), 2, "A clip is missing."),
        (("What plays? " * 400,), 2, "A clip is missing."),
        (("CLIP", "CLIP", "-q", "What?", "--report", "lots"), 2, "'lots' is not one of"),
        (("x" * 5000, "What?"), 3, "There is no such file."),
        (("clip2", "CLIP"), 2, "stands where the question belongs"),
        (("CLIP", ""), 2, "The question is empty."),
        (("CLIP", "  "), 2, "The question is empty."),
        (("CLIP", "-q", ""), 2, "The question is empty."),
        (("none.mp4", "What?"), 3, "none.mp4: There is no such file."),
        (("tests", "What?"), 3, "No clip in this folder"),
        (("EMPTY", "What?"), 3, "The file is empty."),
        (("CLIP", "What?", "--budget", "0"), 2, "--budget 0 is not valid (0 < budget <= 1)."),
        (("CLIP", "What?", "--budget", "30"), 2, "Did you mean 30%?"),
        (("CLIP", "What?", "--budget", "0%"), 2, "--budget 0 is not valid (0 < budget <= 1)."),
        (("CLIP", "What?", "--budget", "3%0"), 2, "--budget '3%0' is not a number."),
        (("CLIP", "What?", "--keep-mass", "x%", "-b", "auto"), 2, "'x%' is not a share."),
        (("CLIP", "What?", "--budget", "1.5"), 2, "--budget 1.5 is not valid (0 < budget <= 1)."),
        (("CLIP", "What?", "--budget", "nan"), 2, "--budget nan is not valid (0 < budget <= 1)."),
        (("CLIP", "What?", "--budget", "lots"), 2, "--budget"),
        (("CLIP", "What?", "--method", "x"), 2, "There is no method 'x'."),
        (("CLIP", "What?", "--fps", "0"), 2, "--fps must be above 0, not 0."),
        (("CLIP", "What?", "--fps", "inf"), 2, "--fps must be a number, not inf."),
        (("CLIP", "What?", "--max-frames", "-1"), 2, "--max-frames must be at least 1, not -1."),
        (
            ("CLIP", "What?", "--start", "20", "--end", "10"),
            2,
            "--end (10 s) must come after --start (20 s)",
        ),
        (("CLIP", "What?", "--start", "1:75"), 2, "'1:75' is not a time."),
        (("CLIP", "What?", "--start=-5"), 2, "'-5' is not a time."),
        (("CLIP", "What?", "--4bit", "--8bit"), 2, "exclude each other"),
        (("CLIP", "What?", "--json", "--jsonl"), 2, "exclude each other"),
        (("CLIP", "What?", "--no-audio", "--no-video"), 2, "leave nothing"),
        (("CLIP", "What?", "--audio", "none.wav"), 3, "none.wav: There is no such file."),
        (("CLIP", "What?", "--choices", "one"), 2, "two or more choices"),
        (("CLIP", "What?", "--choices", "a,a"), 2, "a choice twice"),
        (("CLIP", "What?", "--save", "r.pdf"), 2, "--save cannot write 'r.pdf'."),
        (("CLIP", "What?", "--save", "no/such/r.html"), 2, "does not exist"),
        (("CLIP", "What?", "--save", "CLIP.txt"), 2, "The file exists."),
        (("CLIP", "What?", "--max-new-tokens", "0"), 2, "must be 1 or more"),
        (("CLIP", "What?", "--temperature", "-1"), 2, "must be 0 or more"),
        (("CLIP", "What?", "--top-p", "0"), 2, "above 0 and up to 1"),
        (("CLIP", "What?", "--preset", "p", "--budget", "0.5"), 2, "A preset sets the budget."),
        (
            ("CLIP", "What?", "--preset", "p", "--method", "random"),
            2,
            "A preset sets the method.",
        ),
        (("CLIP", "What?", "--buget", "0.5"), 2, "No such option: --buget"),
        (("CLIP", "memory?"), 5, "Not enough memory."),
        (("CLIP", "bug?"), 1, "RuntimeError: tensor of the wrong shape. This is a bug"),
        (("CLIP", "interrupt?"), 130, ""),
        (("-", "-"), 2, "Stdin can be read once."),
    ],
)
def test_mistake(run, fake, clip, words, code, said) -> None:
    clip.with_name("empty.mp4").write_bytes(b"")
    clip.with_name("concert.mp4.txt").write_text("mine")
    names = {"CLIP": clip, "EMPTY": clip.with_name("empty.mp4"), "CLIP.txt": f"{clip}.txt"}
    found, out, err = run("ask", *(names.get(word, word) for word in words))
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    if code == 130:
        assert err == ""
    else:
        assert err.startswith("omnidrop: error: ")
        assert len(err.splitlines()) == 1
    if code in (2, 3):
        assert not [line for line in fake.log if line.startswith("load")]


def test_usage_mistakes_name_the_help_page(run, fake, clip) -> None:
    assert "Type 'omnidrop ask --help' for help." in run("ask", clip, "What?", "--buget", "1")[2]
    assert "Type 'omnidrop estimate --help' for help." in run("estimate", clip, "--memory")[2]
    code, _, err = run("aks")
    assert code == 2
    assert "aks" in err


def test_debug_shows_the_traceback(run, fake, clip) -> None:
    _, _, err = run("ask", clip, "bug?", "--debug")
    assert "Traceback" in err
    assert "This is a bug in omnidrop" in err


def test_existing_file_is_replaced_with_force(run, fake, clip, tmp_path) -> None:
    target = tmp_path / "r.txt"
    target.write_text("mine")
    assert run("ask", clip, "What?", "--save", target)[0] == 2
    assert target.read_text() == "mine"
    assert run("ask", clip, "What?", "--save", target, "--force")[0] == 0
    assert "OmniDrop" in target.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_names_that_are_not_utf8(clip, tmp_path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")
    with open(name, "wb") as stream:
        stream.write(clip.read_bytes())
    import subprocess

    from fakes import HERE, ROOT, environment

    flags = ("--json", "--report", "full", "--save", str(tmp_path / "r.html"))
    done = subprocess.run(
        [sys.executable, str(HERE / "fakes.py"), "ask", name, "What?", *flags],
        capture_output=True, env=environment(), cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9.mp4" in json.loads(done.stdout.decode("utf-8"))["trace"]["clip"]["path"]
    assert "caf\\udce9.mp4" in done.stderr.decode("utf-8")
    missing = name.replace("caf", "tea")
    done = subprocess.run(
        [sys.executable, str(HERE / "fakes.py"), "ask", missing, "What?"],
        capture_output=True, env=environment(), cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert b"tea\\udce9.mp4" in done.stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("75", 75.0), ("1:15", 75.0), ("0:01:15", 75.0), ("1:15.5", 75.5), ("90:00", 5400.0)],
)
def test_times(text, seconds) -> None:
    assert values.parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "a", "1:60", "1:2:3:4", "-1", "1.5:00", "nan", "1:", ":1"])
def test_not_times(text) -> None:
    from omnidrop.errors import UsageError

    with pytest.raises(UsageError, match="is not a time"):
        values.parse_time(text)


def test_setting_pairs() -> None:
    from omnidrop.errors import UsageError

    pairs = ("diversity=0", "rows=last", "solve=False", "t-mid=none", "entry_ratio=.5")
    assert values.parse_pairs(pairs) == {
        "diversity": 0, "rows": "last", "solve": False, "t_mid": None, "entry_ratio": 0.5
    }  # fmt: skip
    for wrong in ("x", "=1", "a b=1", "budget=0.2"):
        with pytest.raises(UsageError):
            values.parse_pairs((wrong,))
