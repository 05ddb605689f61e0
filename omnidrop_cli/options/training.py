"""Options of `omnidrop train-a2v`: how the predictor is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from omnidrop.options import GenerateOptions
from omnidrop_cli.options.groups import build, option
from omnidrop_cli.options.parsing import parse_share

if TYPE_CHECKING:
    from omnidrop.training.a2v import TrainOptions


@dataclass(frozen=True)
class TrainFlags:
    """How the predictor is trained."""

    steps: Annotated[
        int, option("--steps", panel="Training", metavar="N", help="Steps of training (1000).")
    ] = 1000
    hidden: Annotated[
        int, option("--hidden", panel="Training", metavar="N", help="Width of the network (64).")
    ] = 64
    held_out: Annotated[
        float,
        option(
            "--held-out",
            panel="Training",
            metavar="SHARE",
            parser=parse_share,
            help="Share of the clips held out to measure the loss on (0.2).",
        ),
    ] = 0.2
    seed: Annotated[
        int, option("--seed", panel="Training", metavar="N", help="Seed of everything random (0).")
    ] = 0

    def __post_init__(self) -> None:
        build(GenerateOptions, TrainFlags, seed=self.seed)

    def train_options(self) -> TrainOptions:
        """Return how the library trains."""
        from omnidrop.training.a2v import TrainOptions

        return build(
            TrainOptions,
            TrainFlags,
            steps=self.steps,
            hidden=self.hidden,
            held_out=self.held_out,
            seed=self.seed,
        )
