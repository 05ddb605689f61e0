"""Experts in 4 or 8 bits, for libraries that quantise linear layers only.

Transformers holds a layer's experts as two parameters of three dimensions. bitsandbytes replaces
`nn.Linear` and leaves them as they are, without a word, though they are nine tenths of such a
model. Here a layer's experts are read one by one, quantised on the device, and widened again when
they are used: for a few rows only the experts that these rows chose, without synchronising with
the host, for many rows group by group. So a model is never held in both forms.

4 bits are NF4 (Dettmers et al. 2023, "QLoRA"): blocks of 64 weights share a scale, their largest
magnitude, kept in 16 bits; 0.53 bytes per weight. 8 bits are integers with a scale per row.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnidrop.errors import ModelError
from omnidrop.models import fused, pinned
from omnidrop.models.locations import Weight, header, shards

#: Weights of a 4-bit block, which share a scale.
BLOCK = 64
#: Bytes of widened weights that are held at once, at most, if more than one expert is widened.
GROUP_BYTES = 256 * 2**20
#: Pairs of a row and an expert up to which the chosen experts are gathered.
FEW_PAIRS = 16

#: Half the number of cells in which a scaled weight is looked up.
_HALF = 127.5

#: Names of experts' weights: one tensor per expert (the hub), or a layer's together.
_NAMED = re.compile(
    r"(?:^|\.)layers\.(?P<layer>\d+)\.mlp\.experts\."
    r"(?:(?P<expert>\d+)\.(?P<part>gate|up|down)_proj\.weight|(?P<fused>gate_up|down)_proj)$"
)


def is_expert(name: str) -> bool:
    """Whether a weight of this name belongs to the experts of a layer."""
    return _NAMED.search(name) is not None


def is_single_expert(name: str) -> bool:
    """Whether a weight of this name is one expert's, to be joined with the others of its layer."""
    found = _NAMED.search(name)
    return found is not None and found["expert"] is not None


class Packed(nn.Module, ABC):
    """Matrices of equal size, one per expert, quantised.

    Parameters
    ----------
    count, rows, columns : int
        Number and size of the matrices.
    device : torch.device
    dtype : torch.dtype
        Dtype of the widened weights.
    """

    def __init__(
        self, count: int, rows: int, columns: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.count, self.rows, self.columns, self.dtype = count, rows, columns, dtype

    @property
    def weights(self) -> int:
        """Number of weights before quantisation."""
        return self.count * self.rows * self.columns

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return sum(part.numel() * part.element_size() for part in self.buffers())

    @abstractmethod
    def put(self, expert: int, first: int, weight: Tensor) -> None:
        """Quantise rows of an expert's matrix, from row `first` on."""

    @abstractmethod
    def widen(self, experts: Tensor | slice) -> Tensor:
        """Return the matrices of some experts, (n, rows, columns) in `dtype`."""

    def _taken(self, held: Tensor, experts: Tensor | slice) -> Tensor:
        if isinstance(experts, slice):
            return held[experts]
        return held.index_select(0, experts)


class Packed4(Packed):
    """NF4; see the module."""

    codes: Tensor
    scales: Tensor

    def __init__(
        self, count: int, rows: int, columns: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(count, rows, columns, device, dtype)
        size = rows * columns
        codes = torch.zeros(count, size // 2, dtype=torch.uint8, device=device)
        scales = torch.zeros(count, size // BLOCK, dtype=torch.float16, device=device)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("table", nf4(device), persistent=False)

    def put(self, expert: int, first: int, weight: Tensor) -> None:
        if weight.numel() % BLOCK:
            raise ModelError(
                f"Experts of {weight.numel()} weights cannot be quantised to 4 bits: "
                f"that is no multiple of {BLOCK}.",
                hint="Load without --4bit, or with --8bit.",
            )
        codes, scales = quantised_nf4(weight.contiguous())
        at = first * self.columns
        self.codes[expert, at // 2 : at // 2 + len(codes)] = codes
        self.scales[expert, at // BLOCK : at // BLOCK + len(scales)] = scales

    def widen(self, experts: Tensor | slice) -> Tensor:
        from bitsandbytes.functional import QuantState, dequantize_4bit

        codes, scales = self._taken(self.codes, experts), self._taken(self.scales, experts)
        # On a CPU bitsandbytes widens narrower rows than a block wrongly.
        width = self.columns if self.columns % BLOCK == 0 else BLOCK
        state = QuantState(
            absmax=scales.float().flatten(),
            shape=torch.Size((2 * codes.numel() // width, width)),
            code=self.table,
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=self.dtype,
        )
        wide: Tensor = dequantize_4bit(codes.reshape(-1, 1), state)
        return wide.view(len(codes), self.rows, self.columns)


class Packed8(Packed):
    """Integers of 8 bits with a scale per row."""

    codes: Tensor
    scales: Tensor

    def __init__(
        self, count: int, rows: int, columns: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(count, rows, columns, device, dtype)
        codes = torch.zeros(count, rows, columns, dtype=torch.int8, device=device)
        scales = torch.zeros(count, rows, 1, dtype=torch.float32, device=device)
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", scales, persistent=False)

    def put(self, expert: int, first: int, weight: Tensor) -> None:
        weight = weight.float()
        scales = weight.abs().amax(1, keepdim=True) / 127
        span = slice(first, first + len(weight))
        self.codes[expert, span] = (weight / scales.clamp(min=1e-30)).round_().to(torch.int8)
        self.scales[expert, span] = scales

    def widen(self, experts: Tensor | slice) -> Tensor:
        codes, scales = self._taken(self.codes, experts), self._taken(self.scales, experts)
        return codes.to(self.dtype).mul_(scales.to(self.dtype))


class Kept(Packed):
    """Matrices as they are stored, mapped from the files; nothing is quantised."""

    def __init__(
        self, count: int, rows: int, columns: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(count, rows, columns, device, dtype)
        self._parts: list[dict[int, Tensor]] = [{} for _ in range(count)]

    @property
    def bytes(self) -> int:
        parts = (part for parts in self._parts for part in parts.values())
        return sum(part.numel() * part.element_size() for part in parts)

    def put(self, expert: int, first: int, weight: Tensor) -> None:
        self._parts[expert][first] = weight

    def widen(self, experts: Tensor | slice) -> Tensor:
        chosen = torch.arange(self.count)[experts].tolist()
        wide = torch.empty(len(chosen), self.rows, self.columns, dtype=self.dtype)
        for into, expert in zip(wide, chosen, strict=True):
            for first, part in self._parts[expert].items():
                into[first : first + len(part)] = part
        return wide


def nf4(device: torch.device | str = "cpu") -> Tensor:
    """Return the 16 values of NF4, ascending from -1 to 1, as bitsandbytes has them."""
    from bitsandbytes.functional import get_4bit_type

    values: Tensor = get_4bit_type("nf4", device=device)
    return values


def quantised_nf4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise a contiguous matrix in blocks of `BLOCK` weights.

    Returns
    -------
    codes : Tensor, (weights / 2,) uint8
        Two codes a byte, the first in the upper four bits, as in bitsandbytes.
    scales : Tensor, (weights / BLOCK,) float32
    """
    if weight.is_cuda:
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
        return packed.flatten(), state.absmax
    # The same codes as bitsandbytes', which takes many times as long on a CPU.
    blocks = weight.float().view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    scaled = (blocks / scales.clamp(min=1e-30)[:, None]).flatten()
    lowest, middle = _cells()
    cell = torch.add(_HALF, scaled, alpha=_HALF).to(torch.int32)
    codes = lowest.index_select(0, cell)
    codes += scaled > middle.index_select(0, cell)
    pairs = codes.view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1], scales


@cache
def _cells() -> tuple[Tensor, Tensor]:
    """Divide -1 to 1 into cells that hold the middle between two values of NF4 at most once.

    Returns
    -------
    lowest : Tensor, (256,) uint8
        Code of the lower edge of each cell.
    middle : Tensor, (256,) float32
        Where the next code begins.
    """
    values = nf4()
    middles = (values[1:] + values[:-1]) / 2
    edges = torch.arange(2 * _HALF + 1) / _HALF - 1
    lowest = torch.bucketize(edges, middles)
    return lowest.to(torch.uint8), torch.cat([middles, torch.tensor([2.0])])[lowest]


class SmallExperts(nn.Module):
    """The experts of a layer, quantised.

    It has no weights until `allocate`, so transformers neither misses nor initialises any.

    Parameters
    ----------
    whole : Module
        Transformers' module of them: `num_experts`, `hidden_dim`, `intermediate_dim`, `act_fn`.
    packed : type
        `Packed4` or `Packed8`.
    """

    def __init__(self, whole: Any, packed: type[Packed]) -> None:
        super().__init__()
        self.count = int(whole.num_experts)
        self.hidden, self.width = int(whole.hidden_dim), int(whole.intermediate_dim)
        self.act_fn = whole.act_fn
        self._kind = packed
        self._put: set[tuple[int, str]] = set()

    def allocate(self, device: torch.device, dtype: torch.dtype) -> None:
        """Reserve the memory of the weights."""
        self.gate_up = self._kind(self.count, 2 * self.width, self.hidden, device, dtype)
        self.down = self._kind(self.count, self.hidden, self.width, device, dtype)

    def put(self, expert: int, part: str, weight: Tensor) -> None:
        """Quantise one matrix of an expert: "gate", "up" or "down".

        Raises
        ------
        ValueError
            If its shape is not that of the layer's experts.
        """
        shape = (self.hidden, self.width) if part == "down" else (self.width, self.hidden)
        if tuple(weight.shape) != shape or not 0 <= expert < self.count:
            raise ValueError(f"{tuple(weight.shape)} instead of {shape}, expert {expert}")
        if part == "down":
            self.down.put(expert, 0, weight)
        else:
            self.gate_up.put(expert, 0 if part == "gate" else self.width, weight)
        self._put.add((expert, part))

    def missing(self) -> str | None:
        """Return the name of a matrix that was not put, or None."""
        for expert in range(self.count):
            for part in ("gate", "up", "down"):
                if (expert, part) not in self._put:
                    return f"{expert}.{part}_proj"
        return None

    def forward(self, hidden: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        """Run each row through its experts.

        Parameters
        ----------
        hidden : Tensor, (n, hidden)
        chosen : Tensor, (n, k) int64
            Experts of each row.
        shares : Tensor, (n, k)
            Weights of their outputs.

        Returns
        -------
        Tensor, (n, hidden)
        """
        if chosen.numel() <= FEW_PAIRS and self._kind is not Kept:
            out = self._gathered(hidden, chosen)
        else:
            out = self._grouped(hidden, chosen)
        return (out.unflatten(0, chosen.shape) * shares[..., None]).sum(1).to(hidden.dtype)

    def _gathered(self, hidden: Tensor, chosen: Tensor) -> Tensor:
        """Widen the chosen experts only; every pair of row and expert is a product of its own."""
        experts = chosen.flatten()
        rows = hidden.repeat_interleave(chosen.shape[1], 0)[..., None]
        wide = torch.bmm(self.gate_up.widen(experts), rows).squeeze(-1)
        wide = self._activated(wide)[..., None]
        return torch.bmm(self.down.widen(experts), wide).squeeze(-1)

    def _grouped(self, hidden: Tensor, chosen: Tensor) -> Tensor:
        """Widen group after group of experts, for the rows that chose them."""
        experts = chosen.flatten()
        order = experts.argsort(stable=True)
        rows = order // chosen.shape[1]
        counts = torch.bincount(experts, minlength=self.count).tolist()
        out = hidden.new_empty(len(order), self.hidden)
        per_expert = 2 * self.width * self.hidden * self.gate_up.dtype.itemsize
        size = 1 if self._kind is Kept else max(1, GROUP_BYTES // per_expert)
        at = 0
        for first in range(0, self.count, size):
            inside = counts[first : first + size]
            pairs = slice(at, at + sum(inside))
            at = pairs.stop
            if not sum(inside):
                continue
            group = slice(first, first + len(inside))
            mixed = hidden.index_select(0, rows[pairs])
            wide = self._activated(products(mixed, self.gate_up.widen(group), inside))
            out.index_copy_(0, order[pairs], products(wide, self.down.widen(group), inside))
        return out

    def _activated(self, wide: Tensor) -> Tensor:
        gate, up = wide.chunk(2, -1)
        if isinstance(self.act_fn, nn.SiLU):
            return fused.silu_mul(gate, up)
        activated: Tensor = self.act_fn(gate)
        return activated * up


class SmallBlock(nn.Module):
    """A layer's router and its experts, quantised; takes the place of transformers' module.

    Parameters
    ----------
    whole : Module
        The module it replaces: `gate` returns logits, shares and experts of each row.
    packed : type
        `Packed4` or `Packed8`.
    """

    def __init__(self, whole: Any, packed: type[Packed]) -> None:
        super().__init__()
        self.gate = whole.gate
        self.experts = SmallExperts(whole.experts, packed)

    def forward(self, hidden: Tensor) -> Tensor:
        """Run rows, (b, n, hidden), through their experts."""
        rows = hidden.flatten(0, -2)
        _, shares, chosen = self.gate(rows)
        out: Tensor = self.experts(rows, chosen, shares)
        return out.view(hidden.shape)


def products(rows: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
    """Multiply runs of rows by a matrix each.

    Parameters
    ----------
    rows : Tensor, (n, in)
    weights : Tensor, (g, out, in)
    counts : list of int, length g
        Rows of each run; they sum to n.

    Returns
    -------
    Tensor, (n, out)
    """
    if rows.is_cuda and _multiplies_groups(rows):
        return grouped_mm(rows, weights, counts)
    out = rows.new_empty(len(rows), weights.shape[1])
    for run, into, weight in zip(rows.split(counts), out.split(counts), weights, strict=True):
        if len(run):
            torch.mm(run, weight.t(), out=into)
    return out


def grouped_mm(rows: Tensor, weights: Tensor, counts: list[int]) -> Tensor:
    """Do what `products` does, in one call of PyTorch."""
    ends = torch.tensor(counts, device=rows.device).cumsum(0, dtype=torch.int32)
    return F.grouped_mm(rows, weights.transpose(1, 2), offs=ends)


def _multiplies_groups(rows: Tensor) -> bool:
    """Whether PyTorch multiplies groups of these rows on their GPU in one call."""
    return (
        hasattr(F, "grouped_mm")
        and rows.dtype == torch.bfloat16
        and torch.version.hip is None
        and torch.cuda.get_device_capability(rows.device) >= (8, 0)
    )


def with_small_experts(kind: Any, block: type, quantize: str | None) -> Any:
    """Return a class of models like `kind`, whose experts are quantised, or stay as stored.

    Parameters
    ----------
    kind : type
        Model class of transformers.
    block : type
        Its module of a layer's router and experts.
    quantize : {"4bit", "8bit", None}
    """
    packed: type[Packed] = Kept
    if quantize is not None:
        packed = Packed4 if quantize == "4bit" else Packed8

    def initialise(self: Any, config: Any, *args: Any, **settings: Any) -> None:
        kind.__init__(self, config, *args, **settings)
        for part in list(self.modules()):
            for name, child in list(part.named_children()):
                if isinstance(child, block):
                    setattr(part, name, SmallBlock(child, packed))

    # Transformers knows the names of a checkpoint's weights by a class's name and module.
    names = {"__init__": initialise, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), names)


def fill(model: Any, folder: Path, dtype: torch.dtype, unused: tuple[str, ...] = ()) -> None:
    """Read a checkpoint's experts into the `SmallExperts` of a model, one matrix at a time.

    Parameters
    ----------
    model : Module
        On its device; of a class from `with_small_experts`.
    folder : Path
        The checkpoint's.
    dtype : torch.dtype
        Dtype to compute in.
    unused : tuple of str
        Prefixes of weights to leave out.

    Raises
    ------
    ModelError
        If weights are missing or of the wrong shape; names one.
    """
    layers: dict[int, SmallExperts] = {}
    for name, part in model.named_modules():
        if isinstance(part, SmallExperts):
            layers[int(re.findall(r"\.layers\.(\d+)\.", name)[-1])] = part
            part.allocate(model.device, dtype)
    with _reader(folder, model.device) as read:
        for file in shards(folder, unused):
            for weight in header(file):
                if is_expert(weight.name) and not weight.name.startswith(unused):
                    _put(layers, weight, read(file, weight))
    for layer, part in layers.items():
        if lost := part.missing():
            raise ModelError(
                f"The checkpoint lacks layers.{layer}.mlp.experts.{lost}, a weight of the model.",
                path=folder,
                hint="Download it again, or name another model with --model.",
            )


def _put(layers: dict[int, SmallExperts], weight: Weight, value: Tensor) -> None:
    found = _NAMED.search(weight.name)
    if found is None:
        return
    layer = layers.get(int(found["layer"]))
    if layer is None:
        return  # transformers ignores weights of layers that a config does not have, too
    try:
        if found["part"]:
            layer.put(int(found["expert"]), found["part"], value)
            return
        for expert, matrix in enumerate(value):
            if found["fused"] == "down":
                layer.put(expert, "down", matrix)
            else:
                gate, up = matrix.chunk(2)
                layer.put(expert, "gate", gate)
                layer.put(expert, "up", up)
    except ValueError as error:
        raise ModelError(
            f"{weight.name} has the shape {error}.",
            hint="Download the model again, or name another with --model.",
        ) from error


@contextmanager
def _reader(folder: Path, device: torch.device) -> Iterator[Callable[[Path, Weight], Tensor]]:
    """Yield what reads one tensor of a file to the device."""
    from safetensors import safe_open

    with ExitStack() as stack:
        if pinned.reads_pinned(device):
            try:
                reader = stack.enter_context(pinned.PinnedReader(device))
            except RuntimeError:  # the system cannot pin more memory
                pass
            else:
                unread = reader.lazy(folder, torch.float32)
                if unread is not None:
                    yield lambda _, weight: unread[weight.name][...]
                    return
        open_files: dict[Path, Any] = {}

        def read(file: Path, weight: Weight) -> Tensor:
            if file not in open_files:
                opened = safe_open(file, framework="pt")
                open_files[file] = stack.enter_context(opened)
            tensor: Tensor = open_files[file].get_tensor(weight.name)
            return tensor.to(device)

        yield read
