"""A method in a package of its own: written from the docs alone, seen by every command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest

from omnidrop.errors import UsageError
from omnidrop.testing import check_method

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PACKAGE = ROOT / "examples" / "my_method"
DUET = ROOT / "samples" / "duet.mp4"
QUESTION = "Which instrument plays first?"

sys.path.insert(0, str(ROOT / "tests" / "pruning"))

#: Runs one command after the other in one process: [[words…], …] on stdin, results on stdout.
DRIVER = """
import contextlib, io, json, sys
from omnidrop_cli.main import run
found = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    found.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package as pip would have installed it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(PACKAGE / "loudest.py", folder)
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text("utf-8"))["project"]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(head, encoding="utf-8")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run(site: Path | None, *commands: list[str]) -> list[tuple[int, str, str]]:
    paths = [*([str(site)] if site else []), str(ROOT), os.environ.get("PYTHONPATH", "")]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OMNIDROP_")}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=kept | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(result) for result in json.loads(done.stdout)]


@pytest.mark.slow
def test_every_command_knows_it(site: Path, tmp_path: Path) -> None:
    questions = tmp_path / "set.jsonl"
    row = {"id": "1", "video": str(DUET), "question": QUESTION}
    row |= {"choices": ["piano", "flute"], "answer": "piano"}
    questions.write_text(json.dumps(row) + "\n", encoding="utf-8")
    demo = ["--model", "demo", "--quiet"]
    out = str(tmp_path / "results")
    results = run(
        site,
        ["models", "--json"],
        ["ask", str(DUET), QUESTION, "--method", "loudest", "--set", "turn=0.25", "--json", *demo],
        ["eval", str(questions), "--method", "loudest", "--budget", "0.5", "--json", "--style",
         "plain", "--out", out, *demo],
        ["profile", str(DUET), QUESTION, "--method", "loudest", "--budget", "0.2", "--repeats", "1",
         "--json", *demo],
        ["ask", str(DUET), QUESTION, "--method", "loudest", "--set", "loud=1", *demo],
    )  # fmt: skip
    assert [code for code, _, _ in results] == [0, 0, 0, 0, 2], [err for _, _, err in results]
    models, asked, evaluated, profiled = (json.loads(said) for _, said, _ in results[:4])
    (listed,) = [m for m in models["methods"] if m["name"] == "loudest"]
    assert listed["about"].startswith("Lets the tokens with the largest embeddings in")
    assert listed["settings"] == {"budget": 1.0, "cache": "own", "turn": 0.5}
    assert asked["trace"]["method"]["name"] == "loudest"
    assert asked["trace"]["method"]["turn"] == 0.25
    assert abs(asked["trace"]["realised_budget"] - 0.3) <= 0.01
    assert "loudest" in json.dumps(evaluated)
    records = (tmp_path / "results" / "records.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["label"] for line in records} == {"unpruned", "loudest"}
    assert all(json.loads(line)["status"] == "answered" for line in records)
    assert "loudest" in json.dumps(profiled)
    assert "no setting 'loud'" in results[4][2]


@pytest.mark.slow
def test_without_the_package_nobody_knows_it() -> None:
    ((code, _, err),) = run(None, ["ask", str(DUET), QUESTION, "--method", "loudest"])
    assert code == 2
    assert "no method 'loudest'" in err


@pytest.mark.slow
def test_its_bug_is_not_called_one_of_omnidrop(site: Path, tmp_path: Path) -> None:
    broken = tmp_path / "site"
    shutil.copytree(site, broken)
    with (broken / "loudest.py").open("a", encoding="utf-8") as file:
        file.write(
            "\n    def start(self, plan):\n        return schedules.no_such_function(plan)\n"
        )
    ask = ["ask", str(DUET), QUESTION, "--method", "loudest"]
    results = run(broken, ask, [*ask, "--set", "turn=late"])
    (code, said, err), (_, _, wrong) = results
    assert code == 1
    assert not said
    assert "It arose in 'loudest', an installed package" in err
    assert "bug in omnidrop" not in err
    assert "turn must be a number, not 'late'" in wrong


def test_it_keeps_what_every_method_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))
    from loudest import Loudest

    check_method(Loudest)
    check_method(Loudest, turn=0.25, cache="cut")


def test_the_short_method_on_the_page_is_a_method_too(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "write-a-method.md").read_text("utf-8")
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    (code,) = [block for block in blocks if "NovelAudio" in block]
    module = types.ModuleType("novel_audio")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(code, module.__dict__)
    check_method(module.NovelAudio)
    with pytest.raises(UsageError, match="audio must be a number"):
        module.NovelAudio(audio="more")


def test_the_docs_have_this_very_code() -> None:
    page = (ROOT / "docs" / "write-a-method.md").read_text("utf-8")
    assert (PACKAGE / "loudest.py").read_text("utf-8").strip() in page
    point = 'loudest = "loudest:Loudest"'
    assert point in page
    assert point in (PACKAGE / "pyproject.toml").read_text("utf-8")
