"""Training of OmniSIFT's audio selector on questions with answers, the decoder frozen or not.

The encoders stay as they are. A question is answered from the tokens that the selector leaves, and
the loss is the cross-entropy of the answer alone; there is none on the number of tokens, which the
budget fixes. Gradients reach the selector by a straight-through estimate (`Teacher.loss`).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from omnidrop.clip.options import ClipOptions
from omnidrop.engine.model import Model
from omnidrop.engine.session import Session
from omnidrop.errors import MediaError, OmniDropError, UsageError
from omnidrop.models.gradients import Decoder
from omnidrop.pruning.parts.selector import KIND, Selector, Shape
from omnidrop.pruning.parts.trained import Network
from omnidrop.stages import Progress
from omnidrop.training import resuming
from omnidrop.training.lessons import Encodings, Kept, Lesson, Teacher

#: Questions that a loss is measured on, at most.
JUDGED = 64

#: Share of the steps over which the learning rate rises (public code).
WARM_UP = 0.05

#: Highest norm of the gradients of selector and of decoder (ours).
LONGEST_STEP = 1.0


@dataclass(frozen=True)
class SelectorOptions:
    """How a selector is trained.

    Parameters
    ----------
    hidden, heads : int
        Size of the network; see `omnidrop.pruning.parts.selector.Shape`.
    epochs : int
        How often every question is asked (public code: 1).
    steps : int, optional
        Steps of the optimiser, in place of the epochs' number.
    batch : int
        Questions per step (public code: 128, which few machines hold; ours).
    rate : float
        Learning rate of the selector (ours; public code: 1e-5 for selector and LLM together). AdamW
        without weight decay (ours); warm-up over 5 % of the steps, then a cosine to 0 (public
        code).
    unfreeze : bool
        Train the decoder's layers too (public code: the whole LLM, embeddings and head included).
    decoder_rate : float
        Learning rate of those (public code).
    budget : float, optional
        Share of audio and video tokens that stay while training; default 70 % of audio and 30 % of
        video (public code).
    held_out : float
        Share of the clips held out, at least one.
    save_every : int
        Steps after which the training can go on if it is stopped.
    seed : int
    """

    hidden: int = 512
    heads: int = 8
    epochs: int = 1
    steps: int | None = None
    batch: int = 8
    rate: float = 3e-4
    unfreeze: bool = False
    decoder_rate: float = 1e-5
    budget: float | None = None
    held_out: float = 0.2
    save_every: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden", "heads", "epochs", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more.")
        if self.steps is not None and self.steps < 1:
            raise UsageError("steps must be 1 or more.")
        if self.hidden % self.heads:
            raise UsageError(
                f"hidden ({self.hidden}) must be a multiple of heads ({self.heads}).",
                hint=f"Give a width like {self.heads * max(self.hidden // self.heads, 1)}.",
            )
        if not 0.0 < self.held_out < 1.0:
            raise UsageError(
                f"held_out must be between 0 and 1, not {self.held_out:g}.",
                hint="Give one like 0.2.",
            )
        if self.budget is not None and not 0.0 < self.budget < 1.0:
            raise UsageError(
                f"budget must be between 0 and 1, not {self.budget:g}.", hint="Give one like 0.3."
            )
        if not self.rate > 0.0 or not self.decoder_rate > 0.0 or self.seed < 0:
            raise UsageError("rate and decoder_rate must be above 0; seed 0 or more.")


@dataclass(frozen=True)
class Result:
    """A trained selector.

    Attributes
    ----------
    trained : Network
        The `Selector`, and losses in its `training`.
    failed : int
        Clips that could not be read.
    begin : int
        Steps that an earlier call had done.
    folder : Path
        Of the selector.
    """

    trained: Network
    failed: int
    begin: int
    folder: Path


def train(
    model: Model,
    lessons: Sequence[Lesson],
    folder: Path,
    options: SelectorOptions | None = None,
    *,
    system: str | None = None,
    open_clip: Callable[[Lesson], Session] | None = None,
    progress: Progress | None = None,
    on_failure: Callable[[OmniDropError], None] | None = None,
) -> Result:
    """Train a selector; go on where an earlier call with the same settings stopped.

    Parameters
    ----------
    model : Model
        With `unfreeze` its decoder changes.
    lessons : sequence of Lesson
        About at least two clips.
    folder : Path
        Gets `selector.safetensors` and `selector.json`; with `unfreeze` it becomes a model's folder
        with these in its folder `selector`.
    options : SelectorOptions, optional
    system : str, optional
        System prompt; default the model family's own.
    open_clip : callable, optional
        Opens the clip of a lesson; default `model.open`.
    progress : callable, optional
        Called with (stage, done, total).
    on_failure : callable, optional
        Told of each clip that cannot be read; its questions are left out.

    Returns
    -------
    Result
        `trained.training` holds the losses before and after, on training and held-out questions; on
        the latter also with audio evenly spaced in place of the selector's choice, and that of the
        model before training with every token.

    Raises
    ------
    MediaError
        If there are lessons about fewer than two clips, or no clip can be read.
    ModelError
        If gradients cannot pass the model's decoder, or it cannot be trained.
    UsageError
        If a training that was begun in another way is in the folder.
    """
    options = options or SelectorOptions()
    own = model.adapter.folder
    if options.unfreeze and own is not None and folder.resolve() == own.resolve():
        raise UsageError(
            "With the decoder trained, the result cannot replace the model that is trained.",
            path=folder,
            hint="Name another folder.",
        )
    course = _Course(
        model,
        folder,
        options,
        _split(lessons, options),
        Teacher(model.adapter, model.adapter.decoder(), options.budget, system),
        Encodings(open_clip or (lambda lesson: model.open(lesson.clip, lesson.options)),
                  on_failure or (lambda problem: None)),
        progress or (lambda stage, done, total: None),
    )  # fmt: skip
    with torch.inference_mode(False):
        return course.run()


@dataclass(frozen=True)
class _Parts:
    """Lessons to learn from, and those held out, clip by clip."""

    learned: tuple[tuple[Lesson, ...], ...]
    held_out: tuple[tuple[Lesson, ...], ...]


def _split(lessons: Sequence[Lesson], options: SelectorOptions) -> _Parts:
    """Hold out whole clips."""
    clips: dict[tuple[Path, ClipOptions], list[Lesson]] = {}
    for lesson in lessons:
        clips.setdefault((lesson.clip, lesson.options), []).append(lesson)
    if len(clips) < 2:
        raise MediaError(
            f"The questions are about {len(clips)} clip{'' if len(clips) == 1 else 's'}, and at "
            "least two are needed: one to train on and one to evaluate.",
            hint="Give questions about more clips.",
        )
    found = [tuple(group) for group in clips.values()]
    order = random.Random(options.seed).sample(range(len(found)), len(found))
    aside = min(max(round(options.held_out * len(found)), 1), len(found) - 1)
    return _Parts(tuple(found[i] for i in order[aside:]), tuple(found[i] for i in order[:aside]))


@dataclass(frozen=True)
class _Course:
    """One training."""

    model: Model
    folder: Path
    options: SelectorOptions
    lessons: _Parts
    teacher: Teacher
    encodings: Encodings
    progress: Progress

    @property
    def steps(self) -> int:
        if self.options.steps is not None:
            return self.options.steps
        asked = sum(map(len, self.lessons.learned)) * self.options.epochs
        return -(-asked // self.options.batch)

    def run(self) -> Result:
        """Train, evaluate and write."""
        selector = self._new()
        decoder = self.teacher.decoder
        layers = decoder.parameters() if self.options.unfreeze else {}
        learned = {
            **{f"selector.{name}": p for name, p in selector.named_parameters()},
            **{f"decoder.{name}": p for name, p in layers.items()},
        }
        optimiser = _optimiser(selector, list(layers.values()), self.options)
        setup = self._setup()
        self._make_folder()
        done = resuming.go_on(self.folder, learned, optimiser, setup)
        if done is None:
            done = resuming.Progressed(0, self._before(selector))
        try:
            for weight in layers.values():
                weight.requires_grad_(True)
            for step in range(done.step, self.steps):
                self._step(step, selector, optimiser)
                self.progress("training", step + 1.0, float(self.steps))
                if (step + 1) % self.options.save_every == 0:
                    now = resuming.Progressed(step + 1, done.before)
                    resuming.keep(self.folder, learned, optimiser, setup, now)
        finally:
            for weight in layers.values():
                weight.requires_grad_(False).grad = None
        selector.eval().requires_grad_(False)
        trained = self._trained(selector, done.before)
        return self._write(trained, decoder, done.step)

    def _new(self) -> Selector:
        options = self.options
        shape = Shape(self.model.info.text.hidden, options.hidden, options.heads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            return Selector(shape).to(self.model.adapter.device)

    def _step(self, step: int, selector: Selector, optimiser: torch.optim.Optimizer) -> None:
        batch = [
            (lesson, encoded)
            for lesson in self._batch(step)
            if (encoded := self.encodings.of(lesson)) is not None
        ]
        with torch.enable_grad():
            for lesson, encoded in batch:
                loss = self.teacher.loss(selector, lesson, encoded) / len(batch)
                if loss.requires_grad:  # all of the clip's audio stays, and the decoder is frozen
                    loss.backward()
        scale = _scale(step, self.steps)
        for group in optimiser.param_groups:
            group["lr"] = scale * group["base"]
            torch.nn.utils.clip_grad_norm_(group["params"], LONGEST_STEP)
        optimiser.step()
        optimiser.zero_grad()

    def _batch(self, step: int) -> list[Lesson]:
        """Return the questions of a step: they depend on the seed and the step alone."""
        size = self.options.batch
        number = sum(map(len, self.lessons.learned))
        found: list[Lesson] = []
        places = range(step * size, (step + 1) * size)
        orders = {epoch: self._order(epoch) for epoch in {place // number for place in places}}
        found += [orders[place // number][place % number] for place in places]
        return found

    def _order(self, epoch: int) -> list[Lesson]:
        """Return an epoch's questions: clips in a random order, those of a clip together."""
        draw = random.Random(f"{self.options.seed}/{epoch}")
        clips = [list(clip) for clip in self.lessons.learned]
        draw.shuffle(clips)
        for clip in clips:
            draw.shuffle(clip)
        return [lesson for clip in clips for lesson in clip]

    def _before(self, selector: Selector) -> dict[str, float]:
        """Measure the losses before training."""
        learned, held_out = self.lessons.learned, self.lessons.held_out
        return {
            "loss_before": self._judge(selector, learned, Kept.SELECTED, "before training"),
            "held_out_loss_before": self._judge(selector, held_out, Kept.SELECTED, "held out"),
            "held_out_loss_unpruned": self._judge(selector, held_out, Kept.WHOLE, "unpruned"),
        }

    @torch.no_grad()
    def _judge(
        self, selector: Selector, clips: Sequence[Sequence[Lesson]], kept: Kept, stage: str
    ) -> float:
        """Return the mean loss of some questions, as many of each clip as fit into `JUDGED`."""
        each = max(JUDGED // len(clips), 1)
        asked = [lesson for clip in clips for lesson in clip[:each]][:JUDGED]
        losses = []
        for number, lesson in enumerate(asked):
            self.progress(stage, float(number), float(len(asked)))
            encoded = self.encodings.of(lesson)
            if encoded is not None:
                losses.append(float(self.teacher.loss(selector, lesson, encoded, kept)))
        if not losses:
            raise MediaError(
                "None of the clips can be read that the selector is trained on, or none of those "
                "that are held out.",
                hint="Repair those that are named above, or give questions about other clips.",
            )
        return round(math.fsum(losses) / len(losses), 5)

    def _trained(self, selector: Selector, before: dict[str, Any]) -> Network:
        learned, held_out = self.lessons.learned, self.lessons.held_out
        training: dict[str, Any] = {
            **asdict(self.options),
            "decoder": "trained" if self.options.unfreeze else "frozen",
            "steps": self.steps,
            "clips": len(learned),
            "questions": sum(map(len, learned)),
            "held_out_clips": len(held_out),
            "held_out_questions": sum(map(len, held_out)),
            "parameters": sum(p.numel() for p in selector.parameters()),
            **before,
            "loss": self._judge(selector, learned, Kept.SELECTED, "after training"),
            "held_out_loss": self._judge(selector, held_out, Kept.SELECTED, "held out"),
            "held_out_loss_even": self._judge(selector, held_out, Kept.EVEN, "evenly spaced"),
        }
        adapter = self.model.adapter
        return Network(
            selector, asdict(selector.shape), adapter.info.name, adapter.fingerprint, training
        )

    def _write(self, trained: Network, decoder: Decoder, begin: int) -> Result:
        folder = self.folder / KIND.stem if self.options.unfreeze else self.folder
        try:
            if self.options.unfreeze:
                decoder.write(self.folder)
            KIND.save(folder, trained)
            (self.folder / resuming.STATE).unlink(missing_ok=True)
        except OSError as problem:
            raise _unwritable(self.folder, problem) from problem
        return Result(trained, len(self.encodings.failed), begin, folder)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise _unwritable(self.folder, problem) from problem

    def _setup(self) -> dict[str, Any]:
        """Return what a call must have in common with the one that it goes on from."""
        clips = [*self.lessons.learned, *self.lessons.held_out]
        asked = [
            (str(one.clip), one.question, one.answer, repr(one.options)) for c in clips for one in c
        ]
        digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        adapter = self.model.adapter
        return {
            "model": [adapter.info.name, adapter.fingerprint, adapter.info.dtype],
            "question set": digest,
            "system prompt": self.teacher.system,
            **{
                name.replace("_", " "): value
                for name, value in asdict(self.options).items()
                if name != "save_every"
            },
        }


def _optimiser(
    selector: Selector, layers: list[torch.nn.Parameter], options: SelectorOptions
) -> torch.optim.AdamW:
    groups: list[dict[str, Any]] = [
        {"params": list(selector.parameters()), "base": options.rate},
        {"params": layers, "base": options.decoder_rate},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, weight_decay=0.0)


def _scale(step: int, steps: int) -> float:
    """Return the share of the highest learning rate at a step: a warm-up, then a cosine to 0."""
    warm = max(math.ceil(WARM_UP * steps), 1)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _unwritable(folder: Path, problem: OSError) -> UsageError:
    return UsageError(
        f"The selector cannot be written ({problem.strerror}).",
        path=folder,
        hint="Name another --out.",
    )


__all__ = ["Lesson", "Result", "SelectorOptions", "train"]
