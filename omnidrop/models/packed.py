"""Linear layers in 4 or 8 bits on a CPU: torch's packed products for few rows, widening for many.

For one row, as in decoding, a product takes the time that its weights take to be read, so weights
of a quarter or an eighth of the size are several times as fast as float32. torch has kernels for
that with bfloat16 activations. For many rows arithmetic decides, which those kernels do slowly:
there the matrix is widened into a reused buffer and multiplied as any other.

4 bits: along each row of the matrix, `GROUP` weights share a scale and a middle, both bfloat16,
fitted to the smallest and largest of them; 0.56 bytes per weight. 8 bits: a float32 scale per row.
Sizes that the kernels do not take are padded with zeros, which changes no result.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnidrop.models.scratch import Scratch

#: Weights of a row that share a scale and a middle in 4 bits.
GROUP = 64
#: Columns and rows of the 8-bit kernel are multiples of this.
ALIGNED = 16
#: Rows up to which torch's packed products are faster than widening.
FEW_ROWS = 16
#: Weights that are quantised or widened at once: their values stay in the cache.
CHUNK = 2**19

#: Rows of the matrix that torch's 4-bit kernels hold together, the widest kernel first.
_TILES = (64, 32)
_OPS = torch.ops.aten


def bytes_of(kind: str, rows: int, columns: int) -> int:
    """Return the bytes of a matrix in 4 or 8 bits, scales and padding included."""
    if kind == "4bit":
        rows, columns = _up(rows, _TILES[0]), _up(columns, GROUP)
        return rows * columns // 2 + rows * columns // GROUP * 4
    return _up(rows, ALIGNED) * (_up(columns, ALIGNED) + 4)


class Matrix(nn.Module):
    """A quantised matrix, (out, in), that multiplies rows; it has no bias.

    Parameters
    ----------
    rows, columns : int
        Size of the matrix, out and in.
    scratch : Scratch
        Of the dtype to compute in.
    """

    #: Not to be widened with the rest of a model; see `omnidrop.models.mapped`.
    stays: ClassVar = ("codes", "scales")

    def __init__(self, rows: int, columns: int, scratch: Scratch) -> None:
        super().__init__()
        self.rows, self.columns, self._scratch = rows, columns, scratch

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return sum(part.numel() * part.element_size() for part in self.buffers())

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply (n, in) → (n, out), in the dtype of the rows."""
        padding = self.padded_columns - self.columns
        rows = F.pad(rows, (0, padding)) if padding else rows
        few = len(rows) <= FEW_ROWS and self.quick()
        out = self._few(rows.bfloat16()).to(rows.dtype) if few else self._many(rows)
        return out[:, : self.rows] if out.shape[1] != self.rows else out

    @property
    def padded_columns(self) -> int:
        """Columns held, padding included."""
        raise NotImplementedError

    @staticmethod
    def quick() -> bool:
        """Whether torch's packed product is a fast one on this CPU."""
        raise NotImplementedError

    def widened(self) -> Tensor:
        """Return the matrix that is multiplied by, (out, in), in the dtype to compute in."""
        raise NotImplementedError

    def _few(self, rows: Tensor) -> Tensor:
        raise NotImplementedError

    def _many(self, rows: Tensor) -> Tensor:
        raise NotImplementedError


class Matrix4(Matrix):
    """A matrix in 4 bits.

    The layout is that of torch's kernels: tiles of 64 or 32 rows of the matrix. For each column, a
    tile has the codes of its first half of rows in the lower four bits of as many bytes, and those
    of the other half in the upper four bits.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, rows: int, columns: int, scratch: Scratch) -> None:
        super().__init__(rows, columns, scratch)
        tile = tile_rows() or _TILES[-1]
        tiles, wide = -(-rows // tile), _up(columns, GROUP)
        codes = torch.zeros(tiles, wide, tile // 2, dtype=torch.uint8)
        scales = torch.zeros(wide // GROUP, tiles * tile, 2, dtype=torch.bfloat16)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    @staticmethod
    def quick() -> bool:
        return quick_4_bits()

    @property
    def padded_columns(self) -> int:
        return self.codes.shape[1]

    def put(self, weight: Tensor, first: int = 0) -> None:
        """Quantise rows of the matrix, from row `first` on, a multiple of 64, chunk by chunk."""
        _, columns, half = self.codes.shape
        tile = 2 * half
        step = max(1, CHUNK // (columns * tile)) * tile
        for at in range(0, len(weight), step):
            part = weight[at : at + step].float()
            missing = (columns - part.shape[1], -len(part) % tile)
            if any(missing):
                part = F.pad(part, (0, missing[0], 0, missing[1]))
            start = first + at
            span = slice(start // tile, (start + len(part)) // tile)
            codes, scale, middle = quantised(part, tile)
            low, high = codes.split(half, -1)
            torch.bitwise_or(low, high << 4, out=self.codes[span])
            inside = slice(start, start + len(part))
            self.scales[:, inside, 0] = scale
            self.scales[:, inside, 1] = middle

    def widened(self) -> Tensor:
        wide = torch.empty(self.padded_columns, self._width, dtype=self._scratch.dtype)
        self._widen(wide, slice(None))
        return wide.t()[: self.rows, : self.columns]

    @property
    def _width(self) -> int:
        return self.codes.shape[0] * self.codes.shape[2] * 2

    def _few(self, rows: Tensor) -> Tensor:
        packed = self.codes.view(self._width, -1)
        out: Tensor = _OPS._weight_int4pack_mm_for_cpu(rows, packed, GROUP, self.scales)
        return out

    def _many(self, rows: Tensor) -> Tensor:
        wide = self._scratch.take((self.padded_columns, self._width))
        self._widen(wide, slice(None))
        return rows @ wide

    def _widen(self, into: Tensor, tiles: slice) -> None:
        """Write tiles of the transposed matrix, (in, out of the tiles), chunk by chunk."""
        codes = self.codes[tiles]
        count, columns, half = codes.shape
        groups = columns // GROUP
        scales = self.scales.view(groups, self.codes.shape[0], 2 * half, 2)[:, tiles]
        scale, middle = scales.to(into.dtype).permute(1, 0, 2, 3)[:, :, None].unbind(-1)
        lowest = middle - 8 * scale
        target = into.view(groups, GROUP, count, 2 * half).permute(2, 0, 1, 3)
        step = max(1, CHUNK // (columns * 2 * half))
        for at in range(0, count, step):
            span = slice(at, at + step)
            part = codes[span].view(-1, groups, GROUP, half)
            wide = torch.empty(*part.shape[:3], 2 * half, dtype=into.dtype)
            wide[..., :half] = part & 15
            wide[..., half:] = part >> 4
            torch.addcmul(lowest[span], wide, scale[span], out=target[span])


class Matrix8(Matrix):
    """A matrix in 8 bits, with a scale per row."""

    codes: Tensor
    scales: Tensor

    def __init__(self, rows: int, columns: int, scratch: Scratch) -> None:
        super().__init__(rows, columns, scratch)
        codes = torch.zeros(_up(rows, ALIGNED), _up(columns, ALIGNED), dtype=torch.int8)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", torch.zeros(len(codes)), persistent=False)

    @staticmethod
    def quick() -> bool:
        return multiplies_8_bits()

    @property
    def padded_columns(self) -> int:
        return self.codes.shape[1]

    def put(self, weight: Tensor, first: int = 0) -> None:
        """Quantise rows of the matrix, from row `first` on, chunk by chunk."""
        step = max(1, CHUNK // self.columns)
        for at in range(0, len(weight), step):
            part = weight[at : at + step].float()
            scales = part.abs().amax(1) / 127
            part = (part * (1 / scales.clamp(min=1e-30))[:, None]).round_()
            span = slice(first + at, first + at + len(part))
            self.codes[span, : self.columns] = part.to(torch.int8)
            self.scales[span] = scales

    def widened(self) -> Tensor:
        wide = self.codes.to(self._scratch.dtype) * self.scales.to(self._scratch.dtype)[:, None]
        return wide[: self.rows, : self.columns]

    def take(self, ids: Tensor) -> Tensor:
        """Return rows of the matrix, (...) → (..., in), in the dtype to compute in."""
        flat = ids.flatten()
        wide = self.codes.index_select(0, flat).float() * self.scales.index_select(0, flat)[:, None]
        return wide[:, : self.columns].to(self._scratch.dtype).view(*ids.shape, self.columns)

    def _few(self, rows: Tensor) -> Tensor:
        # The kernel's scales are rounded to the dtype of the rows: applied here in float32.
        out: Tensor = _OPS._weight_int8pack_mm(rows, self.codes, _ones(len(self.codes)))
        return out.float().mul_(self.scales)

    def _many(self, rows: Tensor) -> Tensor:
        step = max(1, 2**28 // self.codes.shape[1])
        parts = [
            F.linear(rows, self._scratch.take(codes.shape).copy_(codes))
            for codes in self.codes.split(step)
        ]
        out = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        return out.mul_(self.scales.to(out.dtype))


class PackedLinear(nn.Module):
    """A linear layer with a quantised matrix.

    Parameters
    ----------
    matrix : Matrix
    bias : Tensor, (out,), or None
    """

    def __init__(self, matrix: Matrix, bias: Tensor | None = None) -> None:
        super().__init__()
        self.matrix = matrix
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.in_features, self.out_features = matrix.columns, matrix.rows

    def forward(self, rows: Tensor) -> Tensor:
        """Apply the layer to (..., in)."""
        out = self.matrix(rows.reshape(-1, self.in_features))
        if self.bias is not None:
            out = out + self.bias
        return out.view(*rows.shape[:-1], self.out_features)


class PackedEmbedding(nn.Module):
    """A table of embeddings in 8 bits.

    Parameters
    ----------
    matrix : Matrix8
    """

    def __init__(self, matrix: Matrix8) -> None:
        super().__init__()
        self.matrix = matrix

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the rows returned."""
        return self.matrix._scratch.dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ids, (...) → (..., D)."""
        return self.matrix.take(ids)


def packed(weight: Tensor, kind: str, scratch: Scratch) -> Matrix4 | Matrix8:
    """Quantise a matrix, (out, in), to "4bit" or "8bit"."""
    if kind == "8bit":
        return packed_8(weight, scratch)
    made = Matrix4(weight.shape[0], weight.shape[1], scratch)
    made.put(weight.detach())
    return made


def packed_8(weight: Tensor, scratch: Scratch) -> Matrix8:
    """Quantise a matrix, (out, in), to 8 bits."""
    made = Matrix8(weight.shape[0], weight.shape[1], scratch)
    made.put(weight.detach())
    return made


def quantised(weight: Tensor, tile: int) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise rows of a matrix to 4 bits.

    Parameters
    ----------
    weight : Tensor, (rows, columns) float32
        Rows are a multiple of `tile`, columns of `GROUP`.
    tile : int

    Returns
    -------
    codes : Tensor, (rows / tile, columns, tile) uint8
        0 to 15; a weight is about ``(code - 8) * scale + middle``.
    scale, middle : Tensor, (columns / GROUP, rows) bfloat16
    """
    # Columns first: the least and the largest of a group are then found by wide instructions.
    tiles = weight.view(-1, tile, weight.shape[1]).transpose(1, 2).contiguous()
    groups = tiles.view(len(tiles), -1, GROUP, tile)
    least, most = groups.amin(2), groups.amax(2)
    # Rounded first, so that codes are chosen for the values that will be used.
    scale = ((most - least) / 15).bfloat16()
    middle = (least + 8 * scale.float()).bfloat16()
    step = scale.float()
    inverse = torch.where(step > 0, 1 / step, 0)
    offset = 8 - middle.float() * inverse
    codes = torch.addcmul(offset[:, :, None], groups, inverse[:, :, None])
    codes = codes.round_().clamp_(0, 15).to(torch.uint8).view(len(tiles), -1, tile)
    return codes, _by_group(scale), _by_group(middle)


def _by_group(values: Tensor) -> Tensor:
    """Reorder (tiles, groups, tile) to (groups, rows)."""
    return values.transpose(0, 1).flatten(1)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


@cache
def _ones(size: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.ones(size, dtype=torch.bfloat16)


@cache
def tile_rows() -> int | None:
    """Return the rows in a tile of torch's 4-bit kernel here; None if there is no fast one.

    The layout is not documented, so it is tried: a small matrix is packed by torch and by us.
    """
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    codes = torch.arange(64 * GROUP, dtype=torch.int32).view(64, GROUP) * 7 % 16
    rows = torch.ones(1, GROUP, dtype=torch.bfloat16)
    scales = torch.tensor([1.0, 0.0], dtype=torch.bfloat16).expand(1, 64, 2).contiguous()
    try:
        theirs = _OPS._convert_weight_to_int4pack_for_cpu(codes, 1)
        product = _OPS._weight_int4pack_mm_for_cpu(rows, theirs, GROUP, scales)
    except (RuntimeError, AttributeError, NotImplementedError):
        return None
    if not torch.equal(product[0].float(), (codes - 8).sum(1).bfloat16().float()):
        return None
    for tile in _TILES:
        low, high = codes.to(torch.uint8).view(-1, tile, GROUP).transpose(1, 2).chunk(2, -1)
        if torch.equal((low | high << 4).flatten(), theirs.flatten()):
            return tile
    return None


def quick_4_bits() -> bool:
    """Whether 4-bit products of few rows are faster here than those of float32."""
    return tile_rows() is not None


@cache
def multiplies_8_bits() -> bool:
    """Whether torch has a fast 8-bit product here that is right."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    codes = (torch.arange(32 * 64).view(32, 64) % 15 - 7).to(torch.int8)
    rows = torch.ones(1, 64, dtype=torch.bfloat16)
    try:
        found = _OPS._weight_int8pack_mm(rows, codes, _ones(32))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.equal(found[0].float(), codes.float().sum(1).bfloat16().float())
