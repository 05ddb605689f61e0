"""Rows answered on a cluster by Ray Data: stateful actors hold the model, results stream back.

    from omnidrop.batch.ray import RayCrew, RayOptions

    with RayCrew(AnswerOptions(load=LoadOptions(model="7b")), RayOptions("auto")) as crew:
        for record in crew.answer_clips(groups):
            ...

Each actor is an `Answerer`: it loads the model once, and reads the next clip while it answers one.
Only the process that has the `RayCrew` writes records. What an actor had in hand when it was lost,
Ray gives to another one. A row at which actors were lost three times is recorded as failed, so that
no clip that ends its process ends the run.

Clips are opened under the same path on every node, so they lie on storage that all of them share.
Ray is imported when a crew begins, and not before: `pip install omnidrop[ray]`.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from omnidrop.batch.answering import Answerer, AnswerOptions, Hooks
from omnidrop.batch.records import Keys, Record, failed
from omnidrop.batch.rows import Row
from omnidrop.errors import MediaError, ModelError, UsageError, printable
from omnidrop.files import to_json

Group = tuple[Sequence[Row], dict[str, Keys]]

#: Address that starts a cluster on this machine and ends it afterwards.
LOCAL = "local"
#: How often an actor may be lost at a row.
MOST_LOSSES = 2
#: Cores of an actor on a CPU, where nothing is said.
CORES = 4
#: Tasks that a run is divided into, at most; each is an object that Ray keeps track of.
_MOST_TASKS = 20_000
#: Clips that a task has at most, so that the next is read while one is answered.
_CLIPS = 4
#: Bytes of the object store of a cluster on this machine: it holds rows and records alone.
_STORE = 256_000_000


@dataclass(frozen=True)
class RayOptions:
    """How a cluster answers.

    Attributes
    ----------
    address : str
        `local`, `auto` for the cluster that this machine belongs to, or HOST:PORT.
    actors : int
        Processes that hold the model; 0 for as many as the cluster has room for.
    cpus : float
        Cores of each; 0 for one beside a GPU, else for `CORES` or all of the smallest node.
    gpus : float
        Of each; below 1, several share one. None for 1 where the cluster has GPUs.
    """

    address: str = LOCAL
    actors: int = 0
    cpus: float = 0.0
    gpus: float | None = None

    def __post_init__(self) -> None:
        if not self.address.strip():
            raise UsageError("The address of the cluster is empty.", hint="Try local or auto.")
        if self.actors < 0 or self.cpus < 0 or (self.gpus or 0.0) < 0:
            raise UsageError("Actors, cores and GPUs are 0 or more.", hint="Leave them out.")


class RayCrew:
    """Actors that answer rows; a context manager with the interface of `workers.Crew`.

    Parameters
    ----------
    options : AnswerOptions
    cluster : RayOptions
    start : callable, optional
        Called first in each actor, which must be able to import it.
    """

    def __init__(
        self,
        options: AnswerOptions,
        cluster: RayOptions,
        *,
        start: Callable[[], None] | None = None,
    ) -> None:
        self._options, self._cluster, self._start = options, cluster, start
        self._started = False

    def __enter__(self) -> RayCrew:
        ray = _import_ray()
        if not ray.is_initialized():
            _connect(ray, self._cluster.address)
            self._started = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._started:
            _import_ray().shutdown()
            self._started = False

    def answer_clips(self, groups: Iterable[Group]) -> Iterator[Record]:
        """Answer groups of rows as `Answerer.answer_clips` does, in the order they are done.

        Parameters
        ----------
        groups : iterable of (sequence of Row, dict)
            Read to its end before the first is asked.

        Raises
        ------
        OmniDropError
            What the model cannot be loaded for.
        """
        given = list(groups)
        left = {row.id: (row, keys[row.id]) for rows, keys in given for row in rows}
        if not left:
            return
        for kind, value in self._results(given):
            if kind == "problem":
                raise pickle.loads(value)
            record: Record = json.loads(value)
            row, _ = left.pop(record["id"], (None, None))
            if row is not None:  # a task that was tried again may tell a row twice
                yield record | {"clip": printable(row.clip)}
        for row, keys in left.values():
            what = "The cluster ended without an answer to this row."
            yield failed(row, keys, ModelError(what, path=row.clip, hint="Run the command again."))

    def _results(self, groups: list[Group]) -> Iterator[tuple[str, bytes]]:
        """Yield what the actors say: records as JSON, or why there is no model."""
        import ray
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        actors, cpus, gpus = self._sizes(ray)
        tasks = _tasks(groups, actors)
        ledger = ray.remote(num_cpus=0)(_Ledger).remote()
        clips = ray.data.from_items(
            [{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks)
        )
        # An actor that is lost is started again, and its task tried again: Ray Data's default.
        answers = clips.map_batches(
            _Actor,
            fn_constructor_args=(_anywhere(self._options, gpus), ledger, self._start),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(actors, len(tasks))),
            num_cpus=cpus,
            num_gpus=gpus or None,
        )
        for row in answers.iter_rows():
            yield row["kind"], row["value"]

    def _sizes(self, ray: Any) -> tuple[int, float, float]:
        """Return actors, and cores and GPUs of each."""
        whole = ray.cluster_resources()
        on_cpu = self._options.load.device == "cpu"
        gpus = self._cluster.gpus
        if gpus is None:
            gpus = 1.0 if whole.get("GPU") and not on_cpu else 0.0
        nodes = [n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]]
        smallest = min((cores for cores in nodes if cores), default=1.0)
        cpus = self._cluster.cpus or (1.0 if gpus else min(float(CORES), smallest))
        room = sum(int(cores // cpus) for cores in nodes)
        if gpus:
            room = min(room, int(whole.get("GPU", 0.0) / gpus))
        if not room:
            raise UsageError(
                f"No node of the cluster has {cpus:g} cores and {gpus:g} GPUs for an actor.",
                hint="Lower --ray-cpus or --ray-gpus.",
            )
        return self._cluster.actors or room, cpus, gpus


class _Ledger:
    """Counts how often a row was begun, wherever; an actor of its own that outlives the others."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Note that a clip or a row is begun; return how often it was before."""
        self.begun[name] += 1
        return self.begun[name] - 1

    def counts(self, names: list[str]) -> list[int]:
        """Return how often each was begun."""
        return [self.begun[name] for name in names]


class _Actor:
    """Holds an answerer; called with one task at a time.

    Parameters
    ----------
    options : AnswerOptions
    ledger : handle of a `_Ledger`
    start : callable or None
    """

    def __init__(
        self, options: AnswerOptions, ledger: Any, start: Callable[[], None] | None
    ) -> None:
        if start is not None:
            start()
        self.ledger = ledger
        self.answerer = Answerer(options, Hooks(on_row=self._on_row))

    def __call__(self, batch: Any) -> Iterator[Any]:
        import pyarrow

        for task in batch.column("task").to_pylist():
            for kind, value in self._task(pickle.loads(task)):
                yield pyarrow.table({"kind": [kind], "value": [value]})

    def _task(self, groups: list[Group]) -> Iterator[tuple[str, bytes]]:
        try:
            lost, left = self._split(groups)
            for record in lost:
                yield "record", to_json(record).encode()
            for record in self.answerer.answer_clips(left):
                yield "record", to_json(record).encode()
        except Exception as problem:
            yield "problem", _pickled(problem)

    def _split(self, groups: list[Group]) -> tuple[list[Record], list[Group]]:
        """Return records of rows at which too many actors were lost, and the other rows."""
        lost: list[Record] = []
        left: list[Group] = []
        for rows, keys in groups:
            clip = f"clip {keys[rows[0].id].row}"
            times, *counts = self._ask("counts", [clip, *(f"row {row.id}" for row in rows)])
            self._ask("begin", clip)
            # Lost before a row was begun: the clip itself cannot be read without an end.
            unread = times > MOST_LOSSES and not any(counts)
            fatal = [unread or count > MOST_LOSSES for count in counts]
            lost += [
                failed(r, keys[r.id], _lost(r)) for r, bad in zip(rows, fatal, strict=True) if bad
            ]
            if fit := [r for r, bad in zip(rows, fatal, strict=True) if not bad]:
                left.append((fit, keys))
        return lost, left

    def _on_row(self, row: Row) -> None:
        self._ask("begin", f"row {row.id}")

    def _ask(self, what: str, *given: Any) -> Any:
        import ray

        return ray.get(getattr(self.ledger, what).remote(*given))


def _import_ray() -> Any:
    # Lost actors are expected, and told in the records.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as problem:
        raise ModelError(
            f"Ray Data cannot be imported ({problem}).", hint="Type: pip install 'omnidrop[ray]'"
        ) from problem
    return ray


def _connect(ray: Any, address: str) -> None:
    own = address == LOCAL
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if own:
        settings |= {"include_dashboard": False, "object_store_memory": _STORE}
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise ModelError(
            f"There is no cluster of Ray at {address!r}: {problem}",
            hint="Start one with `ray start --head`, or give --ray local.",
        ) from problem


def _tasks(groups: list[Group], actors: int) -> list[list[Group]]:
    """Return the groups in tasks of a few clips: every actor gets several tasks."""
    size = min(_CLIPS, max(1, len(groups) // (4 * actors)))
    size = max(size, -(-len(groups) // _MOST_TASKS))
    placed: list[Group] = [([_absolute(row) for row in rows], keys) for rows, keys in groups]
    return [placed[i : i + size] for i in range(0, len(placed), size)]


def _absolute(row: Row) -> Row:
    """Return a row whose clip is found from any folder, and any node that has it."""
    return replace(row, clip=Path(os.path.abspath(row.clip)))


def _anywhere(options: AnswerOptions, gpus: float) -> AnswerOptions:
    """Return options without the number of a GPU: Ray shows each actor its own alone."""
    device = options.load.device
    if gpus and device.startswith("cuda:"):
        device = "cuda"
    return replace(options, load=replace(options.load, device=device))


def _lost(row: Row) -> MediaError:
    return MediaError(
        f"{MOST_LOSSES + 1} actors were lost while they answered this row.",
        path=row.clip,
        hint="Convert it, for example to mp4, and name the new file.",
    )


def _pickled(problem: Exception) -> bytes:
    try:
        text = pickle.dumps(problem)
        pickle.loads(text)
        return text
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(problem).__name__}: {problem}"))


__all__ = ["LOCAL", "RayCrew", "RayOptions"]
