"""16-bit weights that stay mapped from their files, widened to float32 when they are used.

Few CPUs multiply bfloat16. Widening a whole checkpoint to float32 doubles its memory and takes
longer than anything else in loading. Here the tensors stay what they are in the files, mapped, so
loading reads headers, and the pages are the system's to drop. Each matrix is widened into one
reused buffer just before its product, which is that of float32: the results are the same.

For many rows a matrix is widened as a whole. For a single row, as in decoding, that would take
several times as long as the product, so it is widened in blocks that stay in the cache, and each
block is multiplied at once. With one, two or four threads, and with any number on AVX2, MKL
computes the same bits from blocks as from the whole; elsewhere the last bit may differ, as it does
in float32 from one number of threads to another.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnidrop.models.scratch import Scratch

#: Values of a block that is widened for a single row: 1 MiB of float32, which stays in the cache.
BLOCK_VALUES = 2**18
#: Rows of a block are a multiple of this, so that no kernel ends inside its unrolled loop.
BLOCK_ROWS = 64
#: Values that are widened at once at most: 1 GiB of float32. More rows of output come in runs.
MOST_VALUES = 2**28

#: Dtypes that are widened.
NARROW = (torch.bfloat16, torch.float16)


class WidenedLinear(nn.Module):
    """A linear layer with a 16-bit weight that computes in a wider dtype.

    Parameters
    ----------
    weight : Tensor, (out, in)
        In 16 bits; it is not copied.
    bias : Tensor, (out,), or None
    scratch : Scratch
        Of the dtype to compute in.
    """

    stays: ClassVar = ("weight",)

    def __init__(self, weight: Tensor, bias: Tensor | None, scratch: Scratch) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        wide = None if bias is None else bias.detach().to(scratch.dtype)
        self.bias = None if wide is None else nn.Parameter(wide, requires_grad=False)
        self.out_features, self.in_features = weight.shape
        self._scratch = scratch

    def forward(self, rows: Tensor) -> Tensor:
        """Apply the layer to (..., in)."""
        if rows.numel() == self.in_features:
            return self._one_row(rows)
        step = max(1, MOST_VALUES // self.in_features)
        if step >= self.out_features:
            return F.linear(rows, self._wide(0, self.out_features), self.bias)
        out = rows.new_empty(*rows.shape[:-1], self.out_features)
        for first in range(0, self.out_features, step):
            last = min(first + step, self.out_features)
            bias = None if self.bias is None else self.bias[first:last]
            out[..., first:last] = F.linear(rows, self._wide(first, last), bias)
        return out

    def _one_row(self, row: Tensor) -> Tensor:
        """Widen and multiply block after block."""
        flat, out = row.reshape(1, -1), row.new_empty(1, self.out_features)
        step = BLOCK_VALUES // self.in_features // BLOCK_ROWS * BLOCK_ROWS or BLOCK_ROWS
        for first in range(0, self.out_features, step):
            last = min(first + step, self.out_features)
            columns, into = self._wide(first, last).t(), out[:, first:last]
            if self.bias is None:
                torch.mm(flat, columns, out=into)
            else:
                torch.addmm(self.bias[first:last], flat, columns, out=into)
        return out.view(*row.shape[:-1], self.out_features)

    def _wide(self, first: int, last: int) -> Tensor:
        """Return rows of the weight in the wider dtype, valid until the next call."""
        return self._scratch.take((last - first, self.in_features)).copy_(self.weight[first:last])


class WidenedEmbedding(nn.Module):
    """A table of 16-bit embeddings whose rows are widened when they are looked up.

    Parameters
    ----------
    weight : Tensor, (V, D)
        It is not copied.
    dtype : torch.dtype
        Dtype of the rows returned.
    """

    stays: ClassVar = ("weight",)

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.dtype = nn.Parameter(weight.detach(), requires_grad=False), dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ids, (...) → (..., D)."""
        return F.embedding(ids, self.weight).to(self.dtype)


def keep_mapped(model: Any, dtype: torch.dtype, scratch: Scratch | None = None) -> None:
    """Let a model with 16-bit weights compute in a wider dtype, without copying its matrices.

    Linear layers and the decoder's embedding table keep their weights. Everything else (norms,
    biases, convolutions, tables of positions) is small, and is widened once.

    Parameters
    ----------
    model : Module
        Changed in place.
    dtype : torch.dtype
        Dtype to compute in.
    scratch : Scratch, optional
        The buffer to widen into, shared with other modules.
    """
    scratch = scratch or Scratch(dtype)

    def kept(part: nn.Module) -> nn.Module | None:
        if type(part) is nn.Linear and part.weight.dtype in NARROW:
            return WidenedLinear(part.weight, part.bias, scratch)
        return None

    table = embedding_table(model)
    if isinstance(table, nn.Embedding) and table.weight.dtype in NARROW:
        replace(
            model, lambda part: WidenedEmbedding(table.weight, dtype) if part is table else None
        )
    replace(model, kept)
    for part in model.modules():
        stays = getattr(part, "stays", ())
        for name, value in [*part._parameters.items(), *part._buffers.items()]:
            if value is None or value.dtype not in NARROW or name in stays:
                continue
            wide: Tensor = value.detach().to(dtype)
            if isinstance(value, nn.Parameter):
                wide = nn.Parameter(wide, requires_grad=False)
            setattr(part, name, wide)


def embedding_table(model: Any) -> Any:
    """Return the module with the decoder's embeddings, or None if the model has none."""
    find = getattr(model, "get_input_embeddings", None)
    return find() if find is not None else None


class MappedPages:
    """The pages of files that are mapped now, to give back what has been read.

    Without that, all that is read while loading would count as the process's memory, though the
    system could take it back. Only where the system lists mappings (Linux); elsewhere nothing is
    done.
    """

    def __init__(self) -> None:
        self._ranges = sorted(_mapped_ranges())
        self._starts = [first for first, _ in self._ranges]

    def give_back(self, weight: Tensor) -> None:
        """Drop the pages of a tensor that is mapped from a file; they can be read again."""
        first = weight.data_ptr()
        last = first + weight.numel() * weight.element_size()
        at = bisect_right(self._starts, first) - 1
        # Of memory that belongs to no file, the contents would be lost.
        if at < 0 or last > self._ranges[at][1]:
            return
        page = mmap.PAGESIZE
        first, last = -(-first // page) * page, last // page * page
        if last > first:
            libc = ctypes.CDLL(None)
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def _mapped_ranges() -> Iterator[tuple[int, int]]:
    """Yield the addresses, first and end, of mappings of files."""
    if not sys.platform.startswith("linux"):
        return
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            first, last = addresses.split("-")
            yield int(first, 16), int(last, 16)


def replace(model: nn.Module, by: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace parts of a model in place, each by what `by` returns for it; None leaves it."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            new = by(child)
            if new is not None:
                setattr(parent, name, new)
