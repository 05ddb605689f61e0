"""Train the demo model from nothing: the recipe behind `samples/demo-model/`.

    python samples/train_demo.py --out /tmp/run                  everything, hours on two CPU cores
    python samples/train_demo.py --out /tmp/run --steps 20       a taste: 20 steps of each stage
    python samples/train_demo.py --out /tmp/run --device cuda    the same on a GPU

Stages: `towers` (each audio and video token learns to say what it shows), `language` (eight layers
learn to answer from perfect towers' words with noise), `pool` (what the real towers say about some
thousand clips), `mixed` (the eight layers go on, two thirds of the clips from the pool), `joint`
(sixteen layers, grown from the eight; clip tokens are taken out at a random layer from the 11th
on), `export`. Each stage resumes from its last checkpoint in `--out`. Without FluidSynth's full
bank (`--bank`, made by `python -m avsynth.fluid`) the small committed one is used, which is enough
for a taste only.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402
from avsynth.sound import load_bank  # noqa: E402
from recipe.export import export  # noqa: E402
from recipe.labels import Speaker  # noqa: E402
from recipe.language import LanguageOptions, grow, teach_words, train_language  # noqa: E402
from recipe.pool import build_pool, load_pool  # noqa: E402
from recipe.shape import LAYERS, WIDTH, build_model  # noqa: E402
from recipe.towers import TowerOptions, train_towers, wake  # noqa: E402
from recipe.trunk import Trunk  # noqa: E402
from recipe.vocab import build_tokenizer, concept_vectors  # noqa: E402

TOWERS = TowerOptions(steps=1500, clips=8, grids=96, rate=2e-3)
LANGUAGE = LanguageOptions(
    steps=2000,
    horizon=4400,
    clips=6,
    questions=14,
    warmup=60,
    rate=1.3e-3,
    min_s=5.0,
    max_s=7.5,
    cut_after=0.1,
    cut_from=5,
    probe_until=0.95,
)
MIXED = replace(LANGUAGE, steps=3500, min_s=5.5, max_s=9.5, real_share=0.65)
JOINT = replace(
    MIXED,
    steps=700,
    horizon=None,
    warmup=25,
    rate=5e-4,
    cut_after=0.0,
    cut_from=11,
    cut_share=0.6,
    probe_until=0.9,
    real_share=0.75,
    seed=2,
)
STAGES = ("towers", "language", "pool", "mixed", "joint", "export")


def say(text: str) -> None:
    """Print at once, also into a file."""
    print(text, flush=True)


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
    parser.add_argument("--clips", type=int, default=2100, help="clips in the pool")
    parser.add_argument("--bank", default="train", help="note bank: train (committed) or an .npz")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    stages = STAGES if args.stage == "all" else (args.stage,)
    short = {} if args.steps is None else {"steps": args.steps, "horizon": None}
    tok = build_tokenizer()
    speaker = Speaker(concept_vectors(WIDTH))
    model = build_model(tok).to(args.device)
    audio, vision = model.model.audio_tower, model.model.visual
    if "towers" in stages:
        wake(vision)
        wake(audio)
        train_towers(
            audio,
            vision,
            speaker,
            load_bank(args.bank),
            replace(TOWERS, steps=args.steps or TOWERS.steps),
            args.out,
            log=say,
        )
    elif (args.out / "towers.pt").exists():
        whole = torch.load(args.out / "towers.pt", weights_only=False, map_location=args.device)[
            "whole"
        ]
        for name, tower in (("audio.", audio), ("vision.", vision)):
            tower.load_state_dict(
                {k.removeprefix(name): v for k, v in whole.items() if k.startswith(name)}
            )
    small = build_model(tok, LAYERS // 2).to(args.device)
    half = Trunk(small.model.language_model, small.lm_head, probe_layer=3).to(args.device)
    if "language" in stages:
        teach_words(half, tok)
        train_language(half, tok, speaker, replace(LANGUAGE, **short), args.out, log=say)
    pool = args.out / "pool.pkl"
    if "pool" in stages:
        count = args.clips if args.steps is None else min(args.clips, 4 * JOINT.clips)
        build_pool(audio.eval(), vision.eval(), speaker, load_bank(args.bank), count, pool, log=say)
    if "mixed" in stages:
        more = MIXED if args.steps is None else replace(MIXED, steps=2 * args.steps, horizon=None)
        train_language(half, tok, speaker, more, args.out, load_pool(pool, speaker), log=say)
    trunk = Trunk(model.model.language_model, model.lm_head).to(args.device)
    if "joint" in stages or "export" in stages:
        state = torch.load(args.out / "language.pt", weights_only=False, map_location=args.device)[
            "trunk"
        ]
        half.load_state_dict(state)
        grow(small.model.language_model, model.model.language_model)
        model.lm_head.load_state_dict(small.lm_head.state_dict())
        trunk.probes.load_state_dict(half.probes.state_dict())
    if "joint" in stages:
        train_language(
            trunk,
            tok,
            speaker,
            replace(JOINT, **short),
            args.out,
            load_pool(pool, speaker),
            log=say,
            tag="joint",
        )
    elif "export" in stages:
        trunk.load_state_dict(
            torch.load(args.out / "joint.pt", weights_only=False, map_location=args.device)["trunk"]
        )
    if "export" in stages:
        export(model, tok, args.out / "demo-model")
        say(f"written: {args.out / 'demo-model'}")


if __name__ == "__main__":
    main()
