"""Train EchoingPixels on the demo model: a refiner and the decoder behind it, together.

    python samples/train_demo_refiner.py --out DIR                        everything, hours
    python samples/train_demo_refiner.py --out DIR --steps 20 --clips 60  a short trial

Stages, in this order; each is skipped when its result is complete, and the training goes on from
its last checkpoint:

pool      the demo model's encoders encode some thousand clips
refine    refiner and decoder learn to answer from the share of the clip that the refiner lets in
export    the model is written: DIR/refined-model, with the refiner in its folder `refiner`

    omnidrop ask samples/duet.mp4 "What instrument plays first?" --model DIR/refined-model

The encoders are not changed. The published training is one epoch at a rate of 2e-5 from a model of
3 B parameters, without auxiliary losses; here are none either, but the rate is that of the demo
model's own training. Clips and questions come from training seeds, which no question set uses.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from avsynth.sound import load_bank  # noqa: E402
from recipe import checkpoint  # noqa: E402
from recipe.answering import load_demo  # noqa: E402
from recipe.checkpoint import Course, run_stages  # noqa: E402
from recipe.export import dump, write_model  # noqa: E402
from recipe.labels import Speaker  # noqa: E402
from recipe.language import LanguageOptions, train_language  # noqa: E402
from recipe.pool import build_pool, load_pool  # noqa: E402
from recipe.refining import RefinedTrunk, refiner_for  # noqa: E402
from recipe.shape import WIDTH, parts  # noqa: E402
from recipe.vocab import build_tokenizer, concept_vectors  # noqa: E402

DEMO = HERE / "demo-model"
FIRST_SEED = 660_000_000
CLIPS = 1500
OPTIONS = LanguageOptions(
    steps=3000,
    clips=12,
    questions=1,
    rate=1e-3,
    warmup=60,
    probe_weight=0.0,
    real_share=0.75,
    seed=3,
    min_s=5.0,
    max_s=9.0,
)
#: Files of the demo model that are as true of another decoder.
KEPT = (
    *("chat_template.jinja", "chat_template.json", "generation_config.json", "merges.txt"),
    *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"),
    *("video_preprocessor_config.json", "world.json"),
)


class Run:
    """One run in a folder; each method is a stage and reads its inputs from there."""

    def __init__(
        self,
        out: Path,
        options: LanguageOptions = OPTIONS,
        *,
        share: float = 0.2,
        gumbel: bool = False,
        clips: int = CLIPS,
        bank: str = "train",
        device: str = "cpu",
        log: Callable[[str], None] = print,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.options, self.share, self.gumbel = out, options, share, gumbel
        self.clips, self.bank, self.device, self.log = clips, bank, torch.device(device), log
        self.speaker = Speaker(concept_vectors(WIDTH))

    @property
    def folder(self) -> Path:
        """Return the folder of the written model."""
        return self.out / "refined-model"

    def pool(self) -> None:
        """Store the encoders' output for many clips."""
        path = self.out / "pool.pkl"
        if path.exists():
            return
        model, _, _ = load_demo(DEMO)
        audio, vision, _ = parts(model.to(self.device))
        bank = load_bank(self.bank)
        build_pool(audio, vision, self.speaker, bank, self.clips, path, FIRST_SEED, log=self.log)

    def trunk(self) -> tuple[torch.nn.Module, RefinedTrunk]:
        """Return the model and its decoder behind a refiner, before training."""
        torch.manual_seed(self.options.seed)
        model, _, _ = load_demo(DEMO)
        refiner = refiner_for(model)
        noise = torch.Generator().manual_seed(self.options.seed) if self.gumbel else None
        trunk = RefinedTrunk(parts(model).text, model.lm_head, refiner, self.share, noise)
        return model, trunk.to(self.device)

    def refine(self) -> Course:
        """Train refiner and decoder."""
        _, trunk = self.trunk()
        return train_language(
            trunk,
            build_tokenizer(),
            self.speaker,
            self.options,
            self.out,
            load_pool(self.out / "pool.pkl", self.speaker),
            save_every=50,
            log=self.log,
            tag="refined",
        )

    def export(self) -> None:
        """Write the model's folder, the refiner inside."""
        import omnidrop
        from omnidrop.models.sync_rope import written
        from omnidrop.pruning.parts.refiner import KIND
        from omnidrop.pruning.parts.trained import Network

        state = checkpoint.read(self.out / "refined.pt", self.device)
        if state is None:
            raise SystemExit("refined.pt is missing. Run first: --stage refine")
        model, trunk = self.trunk()
        trunk.load_state_dict(state["trunk"])
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            shutil.copyfile(DEMO / name, self.folder / name)
        write_model(model, self.folder)
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        dump(self.folder / "config.json", written(config, trunk.refiner.shape.sections))
        training = {
            "decoder": "trained",
            "share": self.share,
            "gumbel": self.gumbel,
            "steps": state["step"],
            "questions": state["step"] * self.options.clips,
            "rate": self.options.rate,
            "seed": self.options.seed,
        }
        demo = omnidrop.load(str(DEMO), device="cpu", dtype="float32").adapter
        shape = trunk.refiner.shape
        network = Network(trunk.refiner, asdict(shape), "demo", demo.fingerprint, training)
        KIND.save(self.folder / KIND.stem, network)
        self.log(f"written: {self.folder}")


STAGES = ("pool", "refine", "export")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and the model")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--steps", type=int, default=OPTIONS.steps)
    parser.add_argument("--until", type=int, help="stop after this step of them")
    parser.add_argument("--batch", type=int, default=OPTIONS.clips, help="questions per step")
    parser.add_argument("--rate", type=float, default=OPTIONS.rate)
    parser.add_argument("--share", type=float, default=0.2, help="share of the clip that enters")
    parser.add_argument("--gumbel", action="store_true", help="noise on the scores in training")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips in the pool")
    parser.add_argument("--bank", default="train", help="note bank: train (committed) or an .npz")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=OPTIONS.seed, choices=range(10))
    args = parser.parse_args()
    if args.steps < 1 or args.batch < 1 or not 0.0 < args.share < 1.0:
        parser.error("--steps and --batch must be 1 or more, --share between 0 and 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    options = replace(
        OPTIONS,
        steps=min(args.until or args.steps, args.steps),
        horizon=args.steps,
        clips=args.batch,
        rate=args.rate,
        warmup=max(1, min(OPTIONS.warmup, args.steps // 20)),
        seed=args.seed,
    )
    run = Run(
        args.out,
        options,
        share=args.share,
        gumbel=args.gumbel,
        clips=args.clips,
        bank=args.bank,
        device=args.device,
        log=lambda text: print(text, flush=True),
    )
    run_stages(run, STAGES if args.stage == "all" else (args.stage,))


if __name__ == "__main__":
    main()
