"""Options of `omnidrop batch` on a cluster."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

from omnidrop.errors import UsageError
from omnidrop_cli.options.groups import option
from omnidrop_cli.options.parsing import parse_size

if TYPE_CHECKING:
    from omnidrop.batch.ray import RayOptions

PANEL = "Cluster"


@dataclass(frozen=True)
class RayFlags:
    """Which cluster answers, and what each of its actors gets."""

    ray: Annotated[
        str | None,
        option(
            "--ray",
            panel=PANEL,
            metavar="ADDRESS",
            help="Answer on a cluster of Ray: auto, HOST:PORT, or local for one on this machine. "
            "Clips have the same path on all nodes. Needs omnidrop[ray].",
        ),
    ] = None
    ray_actors: Annotated[
        int,
        option(
            "--ray-actors",
            panel=PANEL,
            metavar="N",
            help="Processes that hold the model. Default: as many as there is room for.",
        ),
    ] = 0
    ray_cpus: Annotated[
        float,
        option(
            "--ray-cpus",
            panel=PANEL,
            metavar="N",
            help="Cores of each. Default: 1 beside a GPU, else up to 4.",
        ),
    ] = 0.0
    ray_gpus: Annotated[
        float | None,
        option(
            "--ray-gpus",
            panel=PANEL,
            metavar="N",
            help="GPUs of each; below 1, several share one. Default: 1 where there are any.",
        ),
    ] = None
    ray_readers: Annotated[
        int | None,
        option(
            "--ray-readers",
            panel=PANEL,
            metavar="N",
            help="Tasks that read clips for the actors, a core each; 0 leaves that to the "
            "actors. Default: as many as they leave cores free.",
        ),
    ] = None
    ray_read_limit: Annotated[
        float | None,
        option(
            "--ray-read-limit",
            panel=PANEL,
            metavar="SIZE",
            parser=parse_size,
            help="A clip of more decoded bytes is read by its actor. Default: 256MB.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.ray is None:
            if any(getattr(self, f.name) != f.default for f in fields(self)):
                raise UsageError(
                    "--ray-actors and all other options of a cluster go with --ray.",
                    hint="Add --ray local, or --ray auto.",
                )
            return
        self.options()

    def options(self) -> RayOptions | None:
        """Return the cluster; None for this process and its workers."""
        if self.ray is None:
            return None
        from omnidrop.batch.ray import RayOptions

        options = RayOptions(
            self.ray, self.ray_actors, self.ray_cpus, self.ray_gpus, self.ray_readers
        )
        if self.ray_read_limit is None:
            return options
        return replace(options, read_limit=self.ray_read_limit)
