"""Rows answered on a cluster by Ray Data: tasks read clips, actors hold the model, results stream.

    from omnidrop.batch.ray import RayCrew, RayOptions

    with RayCrew(AnswerOptions(load=LoadOptions(model="7b")), RayOptions("auto")) as crew:
        for record in crew.answer_clips(groups):
            ...

Where the actors leave cores free, tasks without a model read and decode on those, and hand over
what the encoders need (`omnidrop.batch.ray_reading`). Each actor is an `Answerer`: it loads the
model once. Where nothing is read for it, it reads the next clip while it answers one. Only the
process that has the `RayCrew` writes records. What an actor had in hand when it was lost,
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
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from omnidrop.batch.answering import Answerer, AnswerOptions, Hooks
from omnidrop.batch.ray_reading import MOST_LOSSES, Reading, lost, read_groups
from omnidrop.batch.records import Keys, Record, failed
from omnidrop.batch.rows import Row
from omnidrop.errors import ModelError, UsageError, printable
from omnidrop.files import to_json
from omnidrop.host_memory import host_memory_free

if TYPE_CHECKING:
    from omnidrop.clip.specs import MediaSpec

Group = tuple[Sequence[Row], dict[str, Keys]]

#: Address that starts a cluster on this machine and ends it afterwards.
LOCAL = "local"
#: Bytes of frames and sound that a clip may have to be read apart from the actors, where nothing
#: is said: three minutes of 644 x 364 at two frames a second.
READ_LIMIT = 256e6
#: Cores of an actor on a CPU, where nothing is said.
CORES = 4
#: Tasks that a run is divided into, at most; each is an object that Ray keeps track of.
_MOST_TASKS = 20_000
#: Clips that a task has at most, so that the next is read while one is answered.
_CLIPS = 4
#: Bytes of the object store of a cluster on this machine, where it holds rows and records alone.
_STORE = 256_000_000
#: Share of the memory that is left which that store may have, where it holds clips too.
_STORE_SHARE = 0.3
#: Share of a node's store that one clip may take.
_SHARE_OF_STORE = 0.25


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
    readers : int or None
        Tasks that read clips at a time, with a core each; 0 leaves reading to the actors. None for
        as many as the actors leave cores free.
    read_limit : float
        Bytes that a clip's frames and sound may have to be read by a task; a larger one is read
        by the actor that answers.
    """

    address: str = LOCAL
    actors: int = 0
    cpus: float = 0.0
    gpus: float | None = None
    readers: int | None = None
    read_limit: float = READ_LIMIT

    def __post_init__(self) -> None:
        if not self.address.strip():
            raise UsageError("The address of the cluster is empty.", hint="Try local or auto.")
        counts = (self.actors, self.cpus, self.gpus or 0.0, self.readers or 0, self.read_limit)
        if min(counts) < 0:
            raise UsageError(
                "Actors, cores, GPUs, readers and bytes are 0 or more.", hint="Leave them out."
            )


class _Sizes(NamedTuple):
    """What a run takes of a cluster.

    Attributes
    ----------
    actors : int
    cpus, gpus : float
        Of each actor.
    readers : int
        Tasks that read at a time.
    most : float
        Bytes that a clip may have to be read by one of them.
    """

    actors: int
    cpus: float
    gpus: float
    readers: int
    most: float


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
            _connect(ray, self._cluster)
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
        sizes = self._sizes(ray)
        spec = self._media_spec() if sizes.readers else None
        ledger = ray.remote(num_cpus=0)(_Ledger).remote()
        options = _anywhere(self._options, sizes.gpus)
        tasks = _tasks(groups, sizes.actors, 1 if spec is not None else _CLIPS)
        clips = ray.data.from_items(
            [{"task": pickle.dumps(task)} for task in tasks], override_num_blocks=len(tasks)
        )
        most, readers = min(sizes.actors, len(tasks)), min(sizes.readers, len(tasks))
        if spec is not None:
            # One that is lost is tried again without an end: Ray Data's default, as for actors.
            reading = Reading(spec, options.clip, sizes.most, options.timeout)
            clips = clips.map_batches(
                read_groups,
                fn_args=(reading, partial(_ask, ledger), self._start),
                batch_size=1,
                batch_format="pyarrow",
                zero_copy_batch=True,
                # As many as actors, and they would be run inside of these by Ray Data.
                concurrency=readers + (readers == most),
                num_cpus=1,
            )
        # An actor that is lost is started again, and its task tried again: Ray Data's default.
        answers = clips.map_batches(
            _Actor,
            fn_constructor_args=(options, ledger, self._start),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            # Beside tasks that read, actors are started first: those never leave cores free.
            compute=ray.data.ActorPoolStrategy(min_size=most if spec else 1, max_size=most),
            num_cpus=sizes.cpus,
            num_gpus=sizes.gpus or None,
        )
        for row in answers.iter_rows():
            yield row["kind"], row["value"]

    def _media_spec(self) -> MediaSpec | None:
        """Return what the model asks of clips; None if its files are not on this machine."""
        from omnidrop.models.locations import find
        from omnidrop.models.unloaded import media_spec_of

        load = self._options.load
        try:
            return media_spec_of(find(load.model, offline=True))
        except ModelError:
            return None

    def _sizes(self, ray: Any) -> _Sizes:
        """Return what the run takes of the cluster."""
        asked = self._cluster
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        on_cpu = self._options.load.device == "cpu"
        all_gpus = sum(node.get("GPU", 0.0) for node in nodes)
        gpus = asked.gpus
        if gpus is None:
            gpus = 1.0 if all_gpus and not on_cpu else 0.0
        cores = [node.get("CPU", 0.0) for node in nodes]
        smallest = min((count for count in cores if count), default=1.0)
        cpus = asked.cpus or (1.0 if gpus else min(float(CORES), smallest))
        room = sum(int(count // cpus) for count in cores)
        if gpus:
            room = min(room, int(all_gpus / gpus))
        if not room:
            raise UsageError(
                f"No node of the cluster has {cpus:g} cores and {gpus:g} GPUs for an actor.",
                hint="Lower --ray-cpus or --ray-gpus.",
            )
        if asked.readers and not asked.actors:
            room = max(1, min(room, int((sum(cores) - asked.readers) // cpus)))
        actors = asked.actors or room
        free = max(0, int(sum(cores) - min(actors, room) * cpus))
        readers = self._default_readers(free) if asked.readers is None else asked.readers
        if readers and not free:
            raise UsageError(
                f"{actors} actors with {cpus:g} cores each leave no core free to read clips on.",
                hint="Lower --ray-actors or --ray-cpus, or leave reading to them: --ray-readers 0.",
            )
        stores = [node["object_store_memory"] for node in nodes if "object_store_memory" in node]
        most = min(asked.read_limit, _SHARE_OF_STORE * min(stores, default=0.0))
        return _Sizes(min(actors, room) if readers else actors, cpus, gpus, readers, most)

    def _default_readers(self, free: int) -> int:
        """Return how many tasks read where nothing is said: those that have a core of their own.

        Where limits may lower the sampling, a clip is first looked at by the model, and read after.
        """
        return 0 if self._options.fit_pixels or self._options.fit_fps else free


class _Ledger:
    """Counts how often a row was begun, wherever; an actor of its own that outlives the others."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """Note that a clip or a row is begun; return how often it was before."""
        self.begun[name] += 1
        return self.begun[name] - 1

    def end(self, name: str) -> None:
        """Note that it was done; what was begun before does not count any more."""
        self.begun.pop(name, None)

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

        reads = batch.column("read") if "read" in batch.column_names else None
        for number, task in enumerate(batch.column("task").to_pylist()):
            groups = pickle.loads(task)
            if reads is None:
                answering = self.answerer.answer_clips
            else:
                answering = partial(self._answer_read, reads[number].as_buffer())
            for kind, value in self._task(groups, answering):
                yield pyarrow.table({"kind": [kind], "value": [value]})

    def _answer_read(self, read: Any, groups: list[Group]) -> Iterator[Record]:
        for rows, keys in groups:  # one, or none if its rows were given up
            yield from self.answerer.answer_read(rows, keys, pickle.loads(read))

    def _task(
        self, groups: list[Group], answering: Callable[[list[Group]], Iterator[Record]]
    ) -> Iterator[tuple[str, bytes]]:
        try:
            given_up, left = self._split(groups)
            for record in given_up:
                yield "record", to_json(record).encode()
            for record in answering(left):
                yield "record", to_json(record).encode()
        except Exception as problem:
            yield "problem", _pickled(problem)

    def _split(self, groups: list[Group]) -> tuple[list[Record], list[Group]]:
        """Return records of rows at which too many actors were lost, and the other rows."""
        given_up: list[Record] = []
        left: list[Group] = []
        for rows, keys in groups:
            clip = f"clip of row {rows[0].id}"  # not its key: copies of a file have the same
            times, *counts = self._ask("counts", [clip, *(f"row {row.id}" for row in rows)])
            self._ask("begin", clip)
            # Lost before a row was begun: the clip itself cannot be read without an end.
            unread = times > MOST_LOSSES and not any(counts)
            fatal = [unread or count > MOST_LOSSES for count in counts]
            given_up += [
                failed(row, keys[row.id], lost("actor", "answered this row", row))
                for row, bad in zip(rows, fatal, strict=True)
                if bad
            ]
            if fit := [r for r, bad in zip(rows, fatal, strict=True) if not bad]:
                left.append((fit, keys))
        return given_up, left

    def _on_row(self, row: Row) -> None:
        self._ask("begin", f"row {row.id}")

    def _ask(self, what: str, *given: Any) -> Any:
        return _ask(self.ledger, what, *given)


def _ask(ledger: Any, what: str, *given: Any) -> Any:
    """Call the ledger, and wait for what it says."""
    import ray

    return ray.get(getattr(ledger, what).remote(*given))


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


def _connect(ray: Any, cluster: RayOptions) -> None:
    address = cluster.address
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        settings |= {"include_dashboard": False, "object_store_memory": _own_store(cluster)}
    try:
        ray.init(address=address, **settings)
    except (ConnectionError, ValueError, RuntimeError) as problem:
        raise ModelError(
            f"There is no cluster of Ray at {address!r}: {problem}",
            hint="Start one with `ray start --head`, or give --ray local.",
        ) from problem


def _own_store(cluster: RayOptions) -> int:
    """Return the bytes of the object store of a cluster on this machine; taken as it is filled."""
    if cluster.readers == 0:
        return _STORE
    clips = cluster.read_limit * (2 + (os.cpu_count() or 1))
    return max(_STORE, int(min(clips, _STORE_SHARE * host_memory_free())))


def _tasks(groups: list[Group], actors: int, clips: int = _CLIPS) -> list[list[Group]]:
    """Return the groups in tasks of a few clips: every actor gets several tasks."""
    size = min(clips, max(1, len(groups) // (4 * actors)))
    size = max(size, -(-len(groups) // _MOST_TASKS))
    placed: list[Group] = [([_absolute(row) for row in rows], keys) for rows, keys in groups]
    return [placed[i : i + size] for i in range(0, len(placed), size)]


def _absolute(row: Row) -> Row:
    """Return a row whose clip is found from any folder, and any node that has it."""
    return replace(row, clip=_whole(row.clip))


def _whole(path: Path | str) -> Path:
    return Path(os.path.abspath(path))


def _anywhere(options: AnswerOptions, gpus: float) -> AnswerOptions:
    """Return options for any node: without the number of a GPU, as Ray shows an actor its own."""
    device = options.load.device
    if gpus and device.startswith("cuda:"):
        device = "cuda"
    sound = options.clip.audio_file
    clip = options.clip if sound is None else replace(options.clip, audio_file=_whole(sound))
    return replace(options, load=replace(options.load, device=device), clip=clip)


def _pickled(problem: Exception) -> bytes:
    try:
        text = pickle.dumps(problem)
        pickle.loads(text)
        return text
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(problem).__name__}: {problem}"))


__all__ = ["LOCAL", "RayCrew", "RayOptions"]
