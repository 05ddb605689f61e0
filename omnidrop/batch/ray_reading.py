"""The first stage of a batch on Ray: tasks without a model that read and decode clips.

A task opens a clip as an actor would, by what the model asks of media (`MediaSpec`), and hands on a
`ReadClip`: frames as bytes at the model's own size, sound as samples, notices, and errors in the
place where they belong. What it cannot be opened for is handed on in its place. A clip that would
be too large for the store is handed on unread, and the actor reads it.

A task that is lost, with a decoder that ends its process, is tried again by Ray. After three losses
the clip is given up, and the rows about it are recorded as failed.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omnidrop.batch.records import Keys
from omnidrop.batch.rows import Row
from omnidrop.batch.timeouts import TimeIsUp, out_of_time, time_limit
from omnidrop.clip.options import ClipOptions
from omnidrop.errors import MediaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omnidrop.clip.read_clip import ReadClip
    from omnidrop.clip.specs import MediaSpec

    Group = tuple[Sequence[Row], dict[str, Keys]]

#: How often a process may be lost at a clip, or at a row.
MOST_LOSSES = 2


@dataclass(frozen=True)
class Reading:
    """How clips are read where there is no model.

    Attributes
    ----------
    spec : MediaSpec
        What the model asks of media.
    clip : ClipOptions
        A row's own span goes before.
    most : float
        Bytes of frames and sound above which a clip is left to the actor.
    timeout : float or None
        Seconds that reading may take.
    """

    spec: MediaSpec
    clip: ClipOptions
    most: float
    timeout: float | None = None

    def read(self, row: Row) -> ReadClip | Exception | None:
        """Return a row's clip, or why it cannot be read; None if it is too large to be sent."""
        from omnidrop.clip.clip import open_clip
        from omnidrop.clip.read_clip import ReadClip, sendable

        try:
            with (
                time_limit(self.timeout),
                open_clip(row.clip, row.clip_options(self.clip), self.spec) as clip,
            ):
                return ReadClip.of(clip, self.most)
        except TimeIsUp:
            return out_of_time(self.timeout, read=False)
        except Exception as problem:
            return sendable(problem)


def read_groups(
    batch: Any,
    reading: Reading,
    ask: Callable[..., Any],
    start: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """Read the clips of a task; what a task of Ray Data runs.

    Parameters
    ----------
    batch : pyarrow.Table
        Column `task`: pickled lists of groups, rows of one clip with their keys.
    reading : Reading
    ask : callable
        Asks the ledger of the run: its method, and what that takes.
    start : callable, optional
        Called first.

    Yields
    ------
    pyarrow.Table
        One row for each group: `task`, a pickled list of that group, and `read`, the pickled clip,
        error or None.
    """
    import pyarrow

    if start is not None:
        start()
    for task in batch.column("task").to_pylist():
        for group in pickle.loads(task):
            found = pickle.dumps(_read(group, reading, ask), protocol=5)
            large = pyarrow.array([found], pyarrow.large_binary())  # it may be above 2 GiB
            yield pyarrow.table({"task": [pickle.dumps([group])], "read": large})


def _read(group: Group, reading: Reading, ask: Callable[..., Any]) -> ReadClip | Exception | None:
    rows, _ = group
    name = f"read for row {rows[0].id}"
    if ask("begin", name) > MOST_LOSSES:
        return lost("process", "read this clip", rows[0])
    found = reading.read(rows[0])
    ask("end", name)
    return found


def lost(what: str, doing: str, row: Row) -> MediaError:
    """Return the error of a row at which too many processes were lost."""
    plural = {"process": "processes"}.get(what, f"{what}s")
    return MediaError(
        f"{MOST_LOSSES + 1} {plural} were lost while they {doing}.",
        path=row.clip,
        hint="Convert it, for example to mp4, and name the new file.",
    )
