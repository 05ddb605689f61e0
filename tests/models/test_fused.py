"""Fused operations: plain ones equal transformers' bit for bit, kernels within rounding."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as reference

from omnidrop.models import fused

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
#: Tolerances: two units in the last place of 16-bit numbers, some dozens in float32.
TOLERANCE = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 2e-3},
    torch.float16: {"rtol": 2e-3, "atol": 5e-4},
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_norm_equals_transformers_bit_for_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = reference.Qwen2_5OmniRMSNorm(48, eps=1e-6).to(dtype)
    torch.nn.init.uniform_(norm.weight)
    states = torch.randn(2, 7, 48).to(dtype)
    got = fused.rms_norm(states, norm.weight, norm.variance_epsilon)
    assert torch.equal(got, norm(states))
    assert got.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gate_equals_transformers_bit_for_bit_and_is_in_place(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate, up = torch.randn(2, 5, 30).to(dtype).unbind()
    wanted, before = F.silu(gate) * up, up.clone()
    got = fused.silu_mul(gate, up)
    assert torch.equal(got, wanted)
    assert got.data_ptr() == gate.data_ptr()
    assert torch.equal(up, before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rotating_in_place_equals_rotating(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    wide = torch.randn(3, 6, 5 * 16).to(dtype)
    before, cos, sin = wide.clone(), *torch.rand(2, 6, 1, 16)
    states = wide[..., :64].unflatten(-1, (4, 16))
    wanted = fused.rotate(states, cos, sin)
    assert wanted.dtype == dtype
    assert torch.equal(states, before[..., :64].unflatten(-1, (4, 16)))
    assert fused.rotate(states, cos, sin, inplace=True) is states
    assert torch.equal(states, wanted)
    assert torch.equal(wide[..., 64:], before[..., 64:])


def check_kernels(device: str) -> None:
    """Compare the Triton kernels with the plain operations on the shapes that the model uses."""
    from omnidrop.models import fused_triton as kernels

    torch.manual_seed(0)
    for dtype, tolerance in TOLERANCE.items():
        for shape in ((7, 100), (1, 3, 2050), (2, 8), (0, 16)):
            gate, up = torch.randn(2, *shape, device=device).to(dtype)
            wanted = (F.silu(gate.float()) * up.float()).to(dtype)
            assert kernels.takes_rows(gate, up)
            kernels.silu_mul(gate, up)
            torch.testing.assert_close(gate, wanted, **tolerance)
        wide = torch.randn(9, 300, device=device).to(dtype)
        before, (gate, up) = wide.clone(), wide.chunk(2, -1)
        wanted = (F.silu(gate.float()) * up.float()).to(dtype)
        kernels.silu_mul(gate, up)
        torch.testing.assert_close(gate, wanted, **tolerance)
        assert torch.equal(up, before[:, 150:])
        assert not kernels.takes_rows(wide.t(), wide.t())
        assert not kernels.takes_rows(gate, up.double())

        wide = torch.randn(2, 6, 12 * 20, device=device).to(dtype)
        cos, sin = torch.rand(2, 6, 1, 20, device=device)
        before, states = wide.clone(), wide[..., :160].unflatten(-1, (8, 20))
        wanted = fused.rotate(states.cpu(), cos.cpu(), sin.cpu()).to(device)
        assert kernels.takes_heads(states)
        kernels.rotate(states, cos, sin, states)
        torch.testing.assert_close(states, wanted, **tolerance)
        assert torch.equal(wide[..., 160:], before[..., 160:])

        for rows, heads in ((1, 28), (37, 4), (5, 40)):
            states = torch.randn(1, rows, heads, 16, device=device).to(dtype).transpose(1, 2)
            cos, sin = torch.rand(2, 1, 1, rows, 16, device=device).sub(0.5).to(dtype)
            out = torch.empty_like(states)
            kernels.rotate(states, cos, sin, out)
            exact = fused.rotate(*(x.cpu().float() for x in (states, cos, sin)))
            torch.testing.assert_close(out, exact.to(device, dtype), **tolerance)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_in_tritons_interpreter() -> None:
    root = Path(__file__).parents[2]
    code = "from tests.models.test_fused import check_kernels; check_kernels('cpu')"
    path = os.pathsep.join([str(root), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("kind", ["bf16", "fp16", "fp32"])
def test_the_kernels_compile_without_a_gpu(kind: str) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from omnidrop.models import fused_triton as kernels

    states, angles = f"*{kind}", {"cos": "*fp32", "sin": "*fp32"}
    for kernel, pointers, sizes in (
        (kernels._silu_mul, {"gate": states, "up": states}, {"block": 1024}),
        (
            kernels._rotate,
            {"states": states, "out": states, **angles},
            {"half": 40, "half_block": 64, "head_block": 32},
        ),
    ):
        names = kernel.arg_names
        signature = {name: "constexpr" if name in sizes else "i32" for name in names} | pointers
        source = ASTSource(fn=kernel, signature=signature, constexprs=sizes)
        made = triton.compile(source, target=GPUTarget("cuda", 80, 32))
        assert "ptx" in made.asm


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_the_kernels_on_a_gpu() -> None:
    kernels = fused.triton_kernels()
    assert kernels.module is not None, kernels.reason
    check_kernels("cuda")
    for dtype, tolerance in TOLERANCE.items():
        states, weight = torch.randn(5, 64, device="cuda").to(dtype), torch.rand(64).to(dtype)
        wanted = fused.rms_norm(states.cpu(), weight, 1e-6)
        got = fused.rms_norm(states, weight.cuda(), 1e-6)
        torch.testing.assert_close(got.cpu(), wanted, **tolerance)


def test_no_kernel_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("omnidrop.models.fused_triton", raising=False)
    monkeypatch.setitem(sys.modules, "omnidrop.models.fused_triton", None)
    kernels = fused.triton_kernels.__wrapped__()
    assert kernels.module is None
    assert "Triton" in kernels.reason


def test_a_kernel_that_cannot_be_built_has_a_reason_and_a_replacement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        @staticmethod
        def silu_mul(gate: torch.Tensor, up: torch.Tensor) -> None:
            raise RuntimeError("Failed to find C compiler.\nmore")

    make = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device: make(*size))
    monkeypatch.setitem(sys.modules, "omnidrop.models.fused_triton", Broken)
    monkeypatch.setattr("omnidrop.models.fused_triton", Broken, raising=False)
    kernels = fused.triton_kernels.__wrapped__()
    assert kernels.module is None
    assert kernels.reason == "Triton cannot build a kernel here (Failed to find C compiler.)"
