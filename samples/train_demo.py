"""Train the demo model of `samples/demo-model/` from random weights.

    python samples/train_demo.py --out /tmp/run                  everything, hours on two CPU cores
    python samples/train_demo.py --out /tmp/run --steps 20       a short trial: 20 steps per stage
    python samples/train_demo.py --out /tmp/run --device cuda    the same on a GPU
    python samples/train_demo.py --out /tmp/run --cut            a variant, see below

Stages, in this order:

towers    both encoders ("towers") learn a target vector for each audio and video token
audio     the audio tower is trained further
vision    the vision tower is trained further
language  a decoder of eight layers learns to answer, on noisy target vectors
pool      the trained towers encode some thousand clips
mixed     the eight layers are trained further, two thirds of the clips from the pool
joint     sixteen layers are made from the eight and trained
export    the model is written as a folder that transformers loads

Every training stage writes a checkpoint into `--out`, resumes from it, and is skipped when it is
complete. At its end it prints the loss on the same batches before and after. `--stage` runs one
stage only.

`--cut` trains the stages language, mixed and joint again with the same towers. In most steps all
clip tokens are removed before a random late layer. This model is exported to another folder. To
compare the depth curves, run `evaluate_demo.py --model` on that folder and pass its result with
`--beside`.

`--bank` names a full note bank, made by `python -m avsynth.fluid`. Without it the small committed
bank is used, which is enough for a short trial only. `results/training.json` describes the run that
made the shipped weights; the model card prints it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from avsynth.sound import load_bank  # noqa: E402
from recipe import checkpoint  # noqa: E402
from recipe.checkpoint import Course, run_stages  # noqa: E402
from recipe.export import export  # noqa: E402
from recipe.labels import Speaker  # noqa: E402
from recipe.language import LanguageOptions, grow, teach_words, train_language  # noqa: E402
from recipe.lessons import TowerOptions  # noqa: E402
from recipe.pool import build_pool, load_pool  # noqa: E402
from recipe.shape import LAYERS, WIDTH, build_model, parts  # noqa: E402
from recipe.teaching import train_towers  # noqa: E402
from recipe.towers import wake  # noqa: E402
from recipe.trunk import Trunk  # noqa: E402
from recipe.vocab import build_tokenizer, concept_vectors  # noqa: E402

TOWERS = TowerOptions(steps=1500, clips=8, grids=96, rate=2e-3)
AUDIO = replace(TOWERS, steps=1900, rate=8e-3, grids=0)
VISION = replace(TOWERS, steps=1760, rate=1e-2, clips=0)
LANGUAGE = LanguageOptions(
    steps=3000,
    horizon=4400,
    clips=6,
    questions=14,
    warmup=60,
    rate=1.3e-3,
    min_s=5.0,
    max_s=7.5,
    probe_until=0.95,
)
MIXED = replace(LANGUAGE, steps=3600, min_s=5.5, max_s=9.5, real_share=0.65)
JOINT = replace(
    MIXED,
    steps=700,
    horizon=None,
    warmup=25,
    rate=5e-4,
    probe_until=0.9,
    real_share=0.75,
    seed=2,
)
SEEDS = 10
"""Number of allowed seeds; larger ones would draw clips of the test set."""


@dataclass(frozen=True)
class Recipe:
    """Settings of every stage.

    Steps continue from the stage before: `audio` and `vision` continue `towers`, `mixed` continues
    `language`. The high learning rates of `audio` and `vision` are those at step 0 of a cosine
    schedule, of which they run only the last fifth.
    """

    towers: TowerOptions = TOWERS
    audio: TowerOptions = AUDIO
    vision: TowerOptions = VISION
    language: LanguageOptions = LANGUAGE
    mixed: LanguageOptions = MIXED
    joint: LanguageOptions = JOINT
    clips: int = 2100
    seed: int = 0

    def taste(self, steps: int) -> Recipe:
        """Return the same stages with few steps each and shorter warm-ups, at the same rates."""
        warm = max(1, steps // 4)
        few = {"steps": steps, "warmup": warm}
        more = {"steps": 2 * steps, "warmup": warm}
        return replace(
            self,
            towers=replace(self.towers, **few),
            audio=replace(self.audio, **more, rate=self.towers.rate),
            vision=replace(self.vision, **more, rate=self.towers.rate),
            language=replace(self.language, **few, horizon=None),
            mixed=replace(self.mixed, **more, horizon=None),
            joint=replace(self.joint, **few, horizon=None),
            clips=min(self.clips, 4 * self.joint.clips),
        )

    def cut(self) -> Recipe:
        """Return the recipe with clip tokens removed before a random late layer in most steps."""
        half = {"cut_share": 0.7, "cut_from": 5, "cut_after": 0.1}
        return replace(
            self,
            language=replace(self.language, **half),
            mixed=replace(self.mixed, **half),
            joint=replace(self.joint, cut_share=0.6, cut_from=11),
        )

    def seeded(self, seed: int) -> Recipe:
        """Return the recipe with another seed in every stage."""
        return replace(
            self,
            seed=seed,
            **{
                name: replace(getattr(self, name), seed=getattr(self, name).seed + seed)
                for name in ("towers", "audio", "vision", "language", "mixed", "joint")
            },
        )


class StageMissing(SystemExit):
    """A stage that this one depends on has not been run."""


class Run:
    """One training run in a folder; each method is a stage and reads its inputs from there."""

    def __init__(
        self,
        out: Path,
        recipe: Recipe,
        *,
        bank: str = "train",
        device: str = "cpu",
        cut: bool = False,
        log: Callable[[str], None] = print,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.bank, self.log = out, bank, log
        self.recipe = recipe.cut() if cut else recipe
        self.device = torch.device(device)
        self.suffix = "-cut" if cut else ""
        self.tok = build_tokenizer()
        self.speaker = Speaker(concept_vectors(WIDTH))

    @property
    def folder(self) -> Path:
        """Return the folder of the exported model."""
        return self.out / f"demo-model{self.suffix}"

    def _model(self, layers: int = LAYERS) -> torch.nn.Module:
        """Return a model with its initial weights, the same on every device."""
        torch.manual_seed(self.recipe.seed)
        model = build_model(self.tok, layers)
        for tower in parts(model)[:2]:
            wake(tower)
        return model

    def _state(self, tag: str, stage: str, step: int = 0) -> dict:
        """Read the checkpoint of an earlier stage."""
        state = checkpoint.read(self.out / f"{tag}.pt", self.device)
        if state is None or state["step"] < step:
            there = "is missing" if state is None else f"stands at step {state['step']} of {step}"
            raise StageMissing(f"{tag}.pt {there}. Run first: --stage {stage}")
        return state

    def _teach(self, tag: str, options: TowerOptions, start: str | None = None) -> Course:
        if start is not None and not (self.out / f"{tag}.pt").exists():
            self._state(start, start, self.recipe.towers.steps)
        audio, vision, _ = parts(self._model().to(self.device))
        return train_towers(
            audio,
            vision,
            self.speaker,
            load_bank(self.bank),
            options,
            self.out,
            log=self.log,
            tag=tag,
            start=start,
        )

    def towers(self) -> Course:
        """Train both towers."""
        return self._teach("towers", self.recipe.towers)

    def audio(self) -> Course:
        """Train the audio tower further."""
        return self._teach("audio", self.recipe.audio, "towers")

    def vision(self) -> Course:
        """Train the vision tower further."""
        return self._teach("vision", self.recipe.vision, "towers")

    def _load_towers(self, model: torch.nn.Module) -> None:
        """Load the trained towers into a model."""
        audio, vision, _ = parts(model)
        for tag, tower in (("audio", audio), ("vision", vision)):
            whole = self._state(tag, tag, getattr(self.recipe, tag).steps)["whole"]
            tower.load_state_dict(
                {k.removeprefix(f"{tag}."): v for k, v in whole.items() if k.startswith(f"{tag}.")}
            )

    def _half(self) -> tuple[torch.nn.Module, Trunk]:
        """Return a decoder of eight layers with its initial weights."""
        small = self._model(LAYERS // 2)
        half = Trunk(parts(small).text, small.lm_head, probe_layer=3)
        teach_words(half, self.tok)
        return small.to(self.device), half.to(self.device)

    def language(self) -> Course:
        """Train the eight layers on target vectors of drawn clips, without the towers."""
        return train_language(
            self._half()[1],
            self.tok,
            self.speaker,
            self.recipe.language,
            self.out,
            log=self.log,
            tag=f"language{self.suffix}",
        )

    @property
    def _pool(self) -> Path:
        return self.out / "pool.pkl"

    def _load_pool(self) -> list:
        if not self._pool.exists():
            raise StageMissing(f"{self._pool.name} is missing. Run first: --stage pool")
        return load_pool(self._pool, self.speaker)

    def pool(self) -> None:
        """Store the towers' output for many clips."""
        if not self._pool.exists():
            model = self._model().to(self.device).eval()
            self._load_towers(model)
            audio, vision, _ = parts(model)
            build_pool(
                audio,
                vision,
                self.speaker,
                load_bank(self.bank),
                self.recipe.clips,
                self._pool,
                first_seed=600_000_000 + self.recipe.seed * 1_000_000,
                log=self.log,
            )

    def mixed(self) -> Course:
        """Train the eight layers further, on the pool and on drawn clips."""
        tag, options = f"language{self.suffix}", self.recipe.mixed
        done = self._state(tag, "language", self.recipe.language.steps)["step"]
        if done >= options.steps:
            return Course(done, done)
        return train_language(
            self._half()[1],
            self.tok,
            self.speaker,
            options,
            self.out,
            self._load_pool(),
            log=self.log,
            tag=tag,
        )

    def joint(self) -> Course:
        """Make sixteen layers from the eight and train them."""
        tag, options = f"joint{self.suffix}", self.recipe.joint
        there = checkpoint.read(self.out / f"{tag}.pt")
        if there is not None and there["step"] >= options.steps:
            return Course(there["step"], there["step"])
        model = self._model()
        trunk = Trunk(parts(model).text, model.lm_head)
        if there is None:
            small, half = self._half()
            state = self._state(f"language{self.suffix}", "mixed", self.recipe.mixed.steps)
            half.load_state_dict(state["trunk"])
            grow(parts(small).text, parts(model).text)
            model.lm_head.load_state_dict(small.lm_head.state_dict())
            trunk.probes.load_state_dict(half.probes.state_dict())
        return train_language(
            trunk.to(self.device),
            self.tok,
            self.speaker,
            options,
            self.out,
            self._load_pool(),
            log=self.log,
            tag=tag,
        )

    def export(self) -> None:
        """Write the folder that transformers loads."""
        model = self._model().to(self.device)
        self._load_towers(model)
        trunk = Trunk(parts(model).text, model.lm_head).to(self.device)
        state = self._state(f"joint{self.suffix}", "joint", self.recipe.joint.steps)
        trunk.load_state_dict(state["trunk"])
        export(model, self.tok, self.folder)
        self.log(f"written: {self.folder}")


STAGES = ("towers", "audio", "vision", "language", "pool", "mixed", "joint", "export")


def train(run: Run, stages: tuple[str, ...] = STAGES) -> dict[str, Course]:
    """Run stages in order and log their results; return the results of the training stages."""
    return run_stages(run, stages)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoints and the exported model"
    )
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument(
        "--steps", type=int, help="steps of each training stage, in place of the recipe's"
    )
    parser.add_argument("--clips", type=int, help="clips in the pool, in place of the recipe's")
    parser.add_argument("--cut", action="store_true", help="remove clip tokens in most steps")
    parser.add_argument("--bank", default="train", help="note bank: train (committed) or an .npz")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--seed", type=int, default=0, choices=range(SEEDS), metavar=f"0-{SEEDS - 1}"
    )
    args = parser.parse_args()
    if args.steps is not None and args.steps < 1:
        parser.error("--steps must be at least 1")
    if args.seed not in range(SEEDS):
        parser.error(f"--seed must be 0 to {SEEDS - 1}")
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = Recipe().seeded(args.seed)
    if args.steps is not None:
        recipe = recipe.taste(args.steps)
    if args.clips is not None:
        recipe = replace(recipe, clips=args.clips)
    run = Run(
        args.out,
        recipe,
        bank=args.bank,
        device=args.device,
        cut=args.cut,
        log=lambda text: print(text, flush=True),
    )
    train(run, STAGES if args.stage == "all" else (args.stage,))


if __name__ == "__main__":
    main()
