"""The house: doors go one way, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "omnidrop"

#: Which rooms a room may import; the rooms are the first name under `omnidrop`.
DOORS = {
    "errors": set(),
    "positions": {"errors"},
    "prompt": {"errors", "positions"},
    "clip": {"errors"},
    "pruning": {"errors", "prompt"},
    "report": {"errors", "prompt"},
    "models": {"errors", "prompt", "clip"},
    "engine": {"errors", "prompt", "clip", "pruning", "models", "report", "profiling", "omnidrop"},
    "profiling": {"errors", "prompt", "clip", "pruning", "models", "report", "engine", "omnidrop"},
    "training": {"errors", "prompt", "clip", "pruning", "models", "report", "engine", "omnidrop"},
}
DOORS["evaluation"] = DOORS["training"] | {"profiling"}
DOORS["testing"] = DOORS["evaluation"]


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            if node.module == "omnidrop":
                found |= {f"omnidrop.{alias.name}" for alias in node.names}
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if room_of(p) not in ("__init__", "_demo"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_doors_go_one_way(path: Path) -> None:
    room = room_of(path)
    for name in imports(path):
        if not name.startswith("omnidrop"):
            continue
        assert not name.startswith("omnidrop_cli"), f"{path.name} imports the command line"
        other = name.split(".")[1] if "." in name else "omnidrop"
        assert other == room or other in DOORS[room], f"{room} may not import {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_models_knows_transformers(path: Path) -> None:
    heavy = {name.split(".")[0] for name in imports(path)} & {
        "transformers",
        "bitsandbytes",
        "accelerate",
    }
    assert not heavy or room_of(path) == "models"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_library_prints_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert not {"print", "exit", "quit"} & set(calls)


def test_import_omnidrop_does_not_import_torch() -> None:
    code = "import sys, omnidrop; print(sorted({'torch', 'transformers', 'av'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import omnidrop

    assert set(omnidrop.__all__) == {"__version__", *omnidrop._HOME} == set(dir(omnidrop))
    for name in omnidrop.__all__:
        assert getattr(omnidrop, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = omnidrop.nothing


def test_no_file_is_too_long() -> None:
    files = [*FILES, *(ROOT / "omnidrop_cli").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    long = {p.name: n for p in files if (n := len(p.read_text("utf-8").splitlines())) > 600}
    assert not long
