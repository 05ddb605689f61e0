"""Checks of the Triton kernels' source, which need no Triton."""

from __future__ import annotations

import ast
from pathlib import Path

import omnidrop.models

SOURCE = Path(omnidrop.models.__file__).parent / "fused_triton.py"


def test_kernels_have_no_annotations_that_triton_would_evaluate() -> None:
    kernels = [
        node
        for node in ast.parse(SOURCE.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    assert {kernel.name for kernel in kernels} == {"_silu_mul", "_rotate"}
    for kernel in kernels:
        told = {ast.unparse(arg.annotation) for arg in kernel.args.args if arg.annotation}
        assert told == {"tl.constexpr"}
