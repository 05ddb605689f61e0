"""Options of `omnidrop batch` on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from omnidrop.errors import UsageError
from omnidrop_cli.options.groups import option

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

    def __post_init__(self) -> None:
        if self.ray is None:
            if self.ray_actors or self.ray_cpus or self.ray_gpus is not None:
                raise UsageError(
                    "--ray-actors, --ray-cpus and --ray-gpus go with --ray.",
                    hint="Add --ray local, or --ray auto.",
                )
            return
        self.options()

    def options(self) -> RayOptions | None:
        """Return the cluster; None for this process and its workers."""
        if self.ray is None:
            return None
        from omnidrop.batch.ray import RayOptions

        return RayOptions(self.ray, self.ray_actors, self.ray_cpus, self.ray_gpus)
