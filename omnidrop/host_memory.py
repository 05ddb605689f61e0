"""The host memory that is left: of the machine, and under every limit of its containers.

Linux limits a process by its control group and by each group above it, such as a systemd slice, a
Slurm job or a container. A process that passes one of these limits is killed without a word, so
that each of them counts. Both versions of control groups are read:
https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max, memory.current, memory.stat) and
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Where Linux mounts control groups, and where it names those of this process.
MOUNT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class _Version:
    """Names of the files of one version of control groups.

    Attributes
    ----------
    limits : tuple of str
        Files with limits in bytes; the least counts.
    used : str
        File with the bytes in use.
    released, kept : str
        Lines of memory.stat with cached files, which count as used and are released on demand:
        those that were not read lately, and the others.
    """

    limits: tuple[str, ...]
    used: str
    released: str
    kept: str


_V1 = _Version(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    "total_inactive_file",
    "total_active_file",
)
# Above memory.high a process is slowed down until nearly nothing moves.
_V2 = _Version(("memory.max", "memory.high"), "memory.current", "inactive_file", "active_file")


def host_memory_free(mapped: int = 0, mount: Path = MOUNT, own: Path = OWN) -> int:
    """Return the bytes of host memory that can be had without swapping.

    Parameters
    ----------
    mapped : int
        Bytes of files that stay mapped and in use. The system counts their pages as free, or, of a
        group, as free or used by how lately they were read; here they count as used.
    mount : Path
        Where control groups are mounted; ignored if it does not exist.
    own : Path
        The file that names the groups of this process.

    Returns
    -------
    int
        The least of what the machine and the control groups leave.
    """
    left = int(psutil.virtual_memory().available)
    for version, folder in _groups(mount, own):
        room = _left(version, folder, every_file=mapped > 0)
        if room is not None:
            left = min(left, room)
    return max(0, left - mapped)


def _groups(mount: Path, own: Path) -> Iterator[tuple[_Version, Path]]:
    """Yield the folders of this process's groups and of those above them.

    In a container, `own` may name a folder of the host that cannot be seen; then the mount itself
    is the container's group.
    """
    lines: list[str] = []
    with suppress(OSError, UnicodeDecodeError):
        lines = own.read_text(encoding="utf-8").splitlines()
    for line in lines:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            yield from ((_V2, folder) for folder in _upwards(mount, path))
            # Where both versions are in use, the second is mounted beside the first.
            yield from ((_V2, folder) for folder in _upwards(mount / "unified", path))
        elif "memory" in controllers.split(","):
            yield from ((_V1, folder) for folder in _upwards(mount / "memory", path))
    yield _V2, mount
    yield _V1, mount / "memory"


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield the folder of a group and those above it, up to the root."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for count in range(len(parts), -1, -1):
        yield root.joinpath(*parts[:count])


def _left(version: _Version, folder: Path, *, every_file: bool) -> int | None:
    """Return the bytes left in a group; None if it has no limit.

    `every_file` counts files that were read lately as free, too.
    """
    limits = []
    for name in version.limits:
        with suppress(OSError, ValueError):  # "max" is no limit
            limits.append(int((folder / name).read_text(encoding="ascii")))
    if not limits:
        return None
    try:
        used = int((folder / version.used).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    released = 0
    with suppress(OSError, ValueError):
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        stat = dict(line.split(maxsplit=1) for line in lines)
        released = int(stat.get(version.released, 0))
        if every_file:
            released += int(stat.get(version.kept, 0))
    return max(0, min(limits) - used + released)
