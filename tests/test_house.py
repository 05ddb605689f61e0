"""The house: doors go one way, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "omnidrop"

#: Which rooms a room may import; the rooms are the first name under `omnidrop`.
DOORS = {
    "prompt": {"models"},
    "clip": set(),
    "pruning": set(),
    "report": set(),
    "models": {"clip"},
    "engine": {"prompt", "clip", "pruning", "models", "report", "omnidrop"},
}
DOORS["training"] = DOORS["engine"] | {"engine"}
DOORS["profiling"] = DOORS["engine"] | {"engine"}
DOORS["evaluation"] = DOORS["profiling"] | {"profiling"}
DOORS["batch"] = DOORS["evaluation"] | {"evaluation"}
DOORS["serving"] = DOORS["profiling"] | {"profiling"}
DOORS["testing"] = DOORS["evaluation"]
#: The ground floor: every room may import it.
GROUND = {
    "errors": set(),
    "format": set(),
    "host_memory": set(),
    "resident": set(),
    "tokens": set(),
    "transfers": set(),
    "shapes": set(),
    "stages": set(),
    "notices": set(),
    "begun": {"errors"},
    "files": {"errors"},
    "options": {"errors"},
    "parsing": set(),
    "recommended": set(),
    "rotary": set(),
    "evidence": {"errors", "files"},
}
DOORS = {room: doors | set(GROUND) for room, doors in DOORS.items()} | GROUND


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            if node.module == "omnidrop":
                found |= {f"omnidrop.{alias.name}" for alias in node.names}
    return frozenset(found)


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
    tree = tree_of(path)
    calls = [
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert not {"print", "exit", "quit"} & set(calls)


#: Numbers and words of one family: its name, its tokens' pixels, its chat and its rate.
ONE_FAMILY = re.compile(r"[Qq]wen|28 ?[*·x] ?28|28²|28 ?\*\* ?2|im_start|25 (per|a) second")

EVERYWHERE = sorted(
    p
    for top in ("omnidrop", "omnidrop_cli")
    for p in (ROOT / top).rglob("*.py")
    if "_demo" not in p.parts
)


@pytest.mark.parametrize("path", EVERYWHERE, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_models_knows_a_family(path: Path) -> None:
    if path.is_relative_to(PACKAGE / "models"):
        return
    text = path.read_text(encoding="utf-8").splitlines()
    assert not [f"{i}: {line}" for i, line in enumerate(text, 1) if ONE_FAMILY.search(line)]


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "models").glob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_loading_is_family_blind(path: Path) -> None:
    if path.name in ("__init__.py", "mrope.py", "chatml.py"):
        return
    assert not re.search("[Qq]wen", path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def edges() -> dict[str, set[str]]:
    """Every import of one of our files by another, those inside functions too."""
    files = {module_of(path): path for path in EVERYWHERE}
    return {
        name: (imported(path) & files.keys()) - {name}
        for name, path in files.items()
        if path.name != "__init__.py"
    }


def imported(path: Path) -> set[str]:
    """Modules that a file imports, but those for a type checker alone."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
                found.add(child.module)
                found.update(f"{child.module}.{alias.name}" for alias in child.names)
            visit(child)

    visit(tree_of(path))
    return found


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = edges()
    reachable = {name: set(others) for name, others in graph.items()}
    changed = True
    while changed:
        changed = False
        for others in reachable.values():
            more = set().union(*(reachable.get(other, set()) for other in others)) - others
            if more:
                others |= more
                changed = True
    circles = {
        tuple(sorted(other for other in others if name in reachable.get(other, set())))
        for name, others in reachable.items()
        if name in others
    }
    assert not circles


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
