"""Options of `omnidrop train-a2v` and `omnidrop train-selector`: how a network is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from omnidrop.options import GenerateOptions
from omnidrop_cli.options.eval import Limit, Style, System, Videos, check_limit
from omnidrop_cli.options.groups import build, option
from omnidrop_cli.options.parsing import parse_share

if TYPE_CHECKING:
    from omnidrop.training.a2v import TrainOptions
    from omnidrop.training.selector import SelectorOptions


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


@dataclass(frozen=True)
class LessonFlags:
    """Which questions the selector is trained on."""

    videos: Videos = None
    limit: Limit = None
    style: Style = None
    system: System = None

    def __post_init__(self) -> None:
        check_limit(self.limit)


@dataclass(frozen=True)
class SelectorFlags:
    """How the selector is trained."""

    epochs: Annotated[
        int,
        option(
            "--epochs", panel="Training", metavar="N", help="How often every question is asked (1)."
        ),
    ] = 1
    steps: Annotated[
        int | None,
        option(
            "--steps",
            panel="Training",
            metavar="N",
            help="Steps of training, in place of the epochs' number.",
        ),
    ] = None
    batch: Annotated[
        int, option("--batch", panel="Training", metavar="N", help="Questions per step (8).")
    ] = 8
    rate: Annotated[
        float,
        option("--rate", panel="Training", metavar="X", help="Learning rate (0.0003)."),
    ] = 3e-4
    unfreeze: Annotated[
        bool,
        option(
            "--unfreeze",
            panel="Training",
            help="Train the decoder's layers too; the folder then gets a model. Needs --dtype "
            "float32.",
        ),
    ] = False
    decoder_rate: Annotated[
        float,
        option(
            "--decoder-rate",
            panel="Training",
            metavar="X",
            help="Learning rate of the decoder with --unfreeze (0.00001).",
        ),
    ] = 1e-5
    budget: Annotated[
        Any,
        option(
            "--budget",
            "-b",
            panel="Training",
            metavar="SHARE",
            parser=parse_share,
            help="Share of audio and video tokens kept while training. Default: 70 % of audio and "
            "30 % of video.",
        ),
    ] = None
    hidden: Annotated[
        int, option("--hidden", panel="Training", metavar="N", help="Width of the network (512).")
    ] = 512
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
    save_every: Annotated[
        int,
        option(
            "--save-every",
            panel="Training",
            metavar="N",
            help="Steps after which a stopped training can go on (25).",
        ),
    ] = 25
    seed: Annotated[
        int, option("--seed", panel="Training", metavar="N", help="Seed of everything random (0).")
    ] = 0

    def __post_init__(self) -> None:
        build(GenerateOptions, SelectorFlags, seed=self.seed)

    def selector_options(self) -> SelectorOptions:
        """Return how the library trains."""
        from omnidrop.training.selector import SelectorOptions

        return build(
            SelectorOptions,
            SelectorFlags,
            epochs=self.epochs,
            steps=self.steps,
            batch=self.batch,
            rate=self.rate,
            unfreeze=self.unfreeze,
            decoder_rate=self.decoder_rate,
            budget=self.budget,
            hidden=self.hidden,
            held_out=self.held_out,
            save_every=self.save_every,
            seed=self.seed,
        )
