"""A torchvision that does not fit torch: models load, answers are the same, `doctor` says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import omnidrop

PROGRAM = """
import sys
from pathlib import Path
from omnidrop_cli.commands.doctor_checks import _model_code
if "doctor" in sys.argv:
    for finding in _model_code():
        print(finding.mark, finding.name, finding.value)
else:
    import omnidrop
    model = omnidrop.load(sys.argv[1], device="cpu", dtype="float32", offline=True)
    print("loaded", model.info.parameters)
    from transformers.utils import is_torchvision_available
    print("told", is_torchvision_available())
    assert "torchvision" not in sys.modules
"""


def run(words: list[str], *folders: Path) -> subprocess.CompletedProcess[str]:
    ours = Path(omnidrop.__file__).parents[1]
    path = os.pathsep.join(map(str, [*folders, ours]))
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


def broken(folder: Path) -> Path:
    """Write a torchvision that was built for another torch."""
    package, about = folder / "torchvision", folder / "torchvision-0.15.0.dist-info"
    package.mkdir(parents=True)
    about.mkdir()
    text = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
    (package / "__init__.py").write_text(text)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.15.0\n")
    return folder


@pytest.mark.slow
def test_a_torchvision_that_does_not_fit_is_left_out(thinker_folder, tmp_path):
    done = run([str(thinker_folder)], broken(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert "loaded" in done.stdout
    assert "told False" in done.stdout


@pytest.mark.slow
def test_doctor_imports_what_ask_imports(tmp_path):
    done = run(["doctor"], broken(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    notice, imports = done.stdout.splitlines()
    assert notice.startswith("note torchvision cannot be imported, and is left out (RuntimeError")
    assert imports.startswith("ok imports")


@pytest.mark.slow
def test_doctor_finds_model_code_that_cannot_be_imported(tmp_path):
    site = tmp_path / "site"
    (site / "transformers").mkdir(parents=True)
    (site / "transformers" / "__init__.py").write_text('raise ImportError("broken")\n')
    done = run(["doctor"], site)
    assert done.returncode == 0, done.stderr
    assert "wrong imports" in done.stdout
    assert "ImportError: broken" in done.stdout
