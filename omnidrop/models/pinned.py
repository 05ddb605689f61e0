"""Reads a checkpoint's weights into pinned memory and copies them to a GPU while reading on.

Transformers reads memory-mapped files: every page is a page fault, and every copy to the device
passes through the driver's staging memory. When it quantises, it reads with one thread. Here
several threads read blocks of a file directly into pinned memory and copy them while other blocks
are read. A tensor is read when transformers accesses it, so names, conversions, quantisation and
checks remain those of transformers.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import torch

from omnidrop.models.locations import Weight, header, shards

#: Bytes of a block: a matrix of a 3B model has several, so that all threads are busy even if
#: transformers accesses one tensor after the other.
BLOCK = 8 * 2**20

#: Number of threads, each with its own pinned block: while one waits for its copy, others read.
READERS = min(8, max(2, os.cpu_count() or 2))

#: Dtypes by safetensors' names.
TYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


class PinnedReader:
    """Reads tensors from files to a device; a context manager that ends its threads.

    Parameters
    ----------
    device : torch.device
        On a CPU, pageable memory is used.
    block : int
        Bytes of a block.
    """

    def __init__(self, device: torch.device, *, block: int = BLOCK) -> None:
        self._device, self._block = device, block
        self._cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self._room: SimpleQueue[torch.Tensor] = SimpleQueue()
        for _ in range(READERS):
            self._room.put(torch.empty(block, dtype=torch.uint8, pin_memory=self._cuda))
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="omnidrop-weights")
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> PinnedReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._readers.shutdown(cancel_futures=True)
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def read(self, path: Path, weight: Weight, offset: int) -> torch.Tensor:
        """Return a tensor on the device; thread-safe.

        Raises
        ------
        OSError
            If the file cannot be read, or is too short.
        """
        dtype = TYPES[weight.dtype]
        target = torch.empty(weight.shape, dtype=dtype, device=self._device)
        if not target.numel():
            return target
        flat = target.view(-1).view(torch.uint8)
        if self._stream is not None:
            # The memory may have belonged to a tensor that queued work still reads.
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        descriptor = self._open(path)
        jobs = [
            self._readers.submit(self._move, descriptor, offset + at, flat[at : at + self._block])
            for at in range(0, flat.numel(), self._block)
        ]
        for job in jobs:
            job.result()
        return target

    def _open(self, path: Path) -> int:
        with self._lock:
            if path not in self._files:
                self._files[path] = os.open(path, os.O_RDONLY)
            return self._files[path]

    def _move(self, descriptor: int, offset: int, target: torch.Tensor) -> None:
        """Read a block and copy it to the device; return when the copy is complete."""
        block = self._room.get()
        try:
            size = target.numel()
            view: Any = block[:size].numpy()
            done = 0
            while done < size:
                got = os.preadv(descriptor, [view[done:]], offset + done)
                if not got:
                    raise OSError(f"the file is {size - done} bytes too short")
                done += got
            if self._stream is None:
                target.copy_(block[:size])
            else:
                with torch.cuda.stream(self._stream):
                    target.copy_(block[:size], non_blocking=True)
                    copied = torch.cuda.Event(blocking=True)
                    copied.record(self._stream)
                copied.synchronize()
        finally:
            self._room.put(block)

    def lazy(
        self, folder: Path, dtype: torch.dtype, unused: Sequence[str] = ()
    ) -> dict[str, Unread] | None:
        """Return the tensors of a checkpoint by name, without unused parts, not yet read.

        Parameters
        ----------
        folder : Path
        dtype : torch.dtype
            The model's dtype. Other dtypes are converted on the device.
        unused : sequence of str
            Prefixes of tensors to leave out.

        Returns
        -------
        dict of Unread, or None
            None if a tensor has a dtype that is not supported here, or wider than `dtype`: the
            memory of the wider copy could be too much for a model that just fits.
        """
        found = {
            weight.name: Unread(self, file, weight, at)
            for file in shards(folder, unused)
            for weight, at in _placed(file)
            if not weight.name.startswith(tuple(unused))
        }
        types = {unread.weight.dtype for unread in found.values()}
        fit = all(name in TYPES and TYPES[name].itemsize <= dtype.itemsize for name in types)
        return found if fit else None


class Unread:
    """A tensor that is read when it is indexed, like a slice of safetensors.

    Parameters
    ----------
    reader : PinnedReader
    path : Path
    weight : Weight
    offset : int
        Offset of its bytes in the file.
    """

    def __init__(self, reader: PinnedReader, path: Path, weight: Weight, offset: int) -> None:
        self._reader, self._path, self.weight, self._offset = reader, path, weight, offset

    def __getitem__(self, index: Any) -> torch.Tensor:
        """Read the whole tensor, then index it."""
        return self._reader.read(self._path, self.weight, self._offset)[index]

    def get_shape(self) -> list[int]:
        """Return the shape."""
        return list(self.weight.shape)

    def get_dtype(self) -> str:
        """Return safetensors' name of the dtype."""
        return self.weight.dtype

    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self.weight.shape)


def _placed(path: Path) -> list[tuple[Weight, int]]:
    """List the tensors of a file, with the offset of each."""
    weights = header(path)  # safetensors has checked the file
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
    return [(weight, 8 + length + entries[weight.name]["data_offsets"][0]) for weight in weights]


def reads_pinned(device: torch.device) -> bool:
    """Whether weights for this device are read here; otherwise transformers reads them."""
    return device.type == "cuda" and hasattr(os, "preadv")
