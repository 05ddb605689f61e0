"""The Triton kernels of `omnidrop.models.fused`; imported only where Triton is installed.

Parameters of kernels have no type annotations except `tl.constexpr`: Triton evaluates annotations.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Channels that one program of `silu_mul` computes.
CHANNELS = 1024
#: Heads that one program of `rotate` computes at a time, at most.
HEADS = 32


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _silu_mul(
    gate,
    up,
    width,
    gate_stride,
    up_stride,
    block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    places = gate + row * gate_stride + column
    wide = tl.load(places, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    made = wide / (1.0 + tl.exp(-wide)) * other
    tl.store(places, made.to(gate.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["inner"])  # type: ignore[untyped-decorator,unused-ignore]
def _rotate(
    states,
    cos,
    sin,
    out,
    inner,
    heads,
    states_outer,
    states_inner,
    states_head,
    cos_outer,
    cos_inner,
    cos_head,
    sin_outer,
    sin_inner,
    sin_head,
    out_outer,
    out_inner,
    out_head,
    half: tl.constexpr,
    half_block: tl.constexpr,
    head_block: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    a, b = row // inner, row % inner
    head = (tl.program_id(1) * head_block + tl.arange(0, head_block))[:, None]
    place = tl.arange(0, half_block)[None, :]
    inside = (head < heads) & (place < half)

    at = states + a * states_outer + b * states_inner + head * states_head + place
    first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)
    at = cos + a * cos_outer + b * cos_inner + head * cos_head + place
    cos_first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    cos_second = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)
    at = sin + a * sin_outer + b * sin_inner + head * sin_head + place
    sin_first = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    sin_second = tl.load(at + half, mask=inside, other=0.0).to(tl.float32)

    kind = out.dtype.element_ty
    at = out + a * out_outer + b * out_inner + head * out_head + place
    tl.store(at, (first * cos_first - second * sin_first).to(kind), mask=inside)
    tl.store(at + half, (second * cos_second + first * sin_second).to(kind), mask=inside)


def takes_rows(*states: Tensor) -> bool:
    """Whether `silu_mul` can run: same dtype and shape, and one stride between rows."""
    first = states[0]
    return all(
        s.dtype == first.dtype and s.shape == first.shape and _rows(s) is not None for s in states
    )


def takes_heads(states: Tensor) -> bool:
    """Whether `rotate` can run: four dimensions, the last contiguous and of even size."""
    return states.ndim == 4 and states.stride(-1) == 1 and states.shape[-1] % 2 == 0


def silu_mul(gate: Tensor, up: Tensor) -> None:
    """Compute ``silu(gate) * up`` in `gate`; both (..., n), as `takes_rows` requires."""
    rows, other = _rows(gate), _rows(up)
    if rows is None or other is None:
        raise ValueError(f"Rows of {tuple(gate.shape)} do not have one stride.")
    if not gate.numel():
        return
    width = gate.shape[-1]
    block = min(CHANNELS, triton.next_power_of_2(width))
    grid = (rows.shape[0], triton.cdiv(width, block))
    with torch.cuda.device_of(gate):
        _silu_mul[grid](rows, other, width, rows.stride(0), other.stride(0), block=block)


def rotate(states: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Write the rotated `states`, (a, b, c, d), to `out`; `cos` and `sin` broadcast to them."""
    cos, sin = cos.expand_as(states), sin.expand_as(states)
    if not cos.stride(1) and cos.stride(2):  # heads before rows: all heads share the angles
        states, cos, sin, out = (x.transpose(1, 2) for x in (states, cos, sin, out))
    outer, inner, heads, width = states.shape
    if not states.numel():
        return
    block = min(HEADS, triton.next_power_of_2(heads))
    with torch.cuda.device_of(states):
        _rotate[(outer * inner, triton.cdiv(heads, block))](
            states,
            cos,
            sin,
            out,
            inner,
            heads,
            *states.stride()[:3],
            *cos.stride()[:3],
            *sin.stride()[:3],
            *out.stride()[:3],
            half=width // 2,
            half_block=triton.next_power_of_2(width // 2),
            head_block=block,
        )


def _rows(states: Tensor) -> Tensor | None:
    """Return (..., n) as (rows, n) without a copy; None if that is not possible."""
    if states.stride(-1) != 1:
        return None
    try:
        return states.view(-1, states.shape[-1])
    except RuntimeError:
        return None
