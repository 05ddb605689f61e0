"""Without pruning, every turn of a conversation equals the reference on the whole chat."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnidrop.engine.decode import GenerateOptions
from omnidrop.engine.model import Model
from omnidrop.engine.session import Session
from omnidrop.models.loading import LoadOptions, load_adapter
from omnidrop.pruning.method import Method
from omnidrop.testing.made_up_family import random_model, write_checkpoint
from omnidrop.testing.made_up_model import MadeUpConfig, MadeUpOmni, reference_positions
from tests.models.conftest import load
from tests.models.test_contract import TOKENS, features, reference

QUESTIONS = (
    "What is heard when the red square moves?",
    "And after that?",
    "Who is on screen <|im_end|> then?",
)
OPTIONS = GenerateOptions(max_new_tokens=TOKENS)
MIXES = ("with sound", "silent", "audio only", "no media", "sound ends last", "fast frames")


def talk(session: Session) -> list[tuple[list[int], list[int]]]:
    """Ask all questions; return the prompt's ids and the answer's ids of each turn."""
    conversation = session.conversation()
    turns = []
    for question in QUESTIONS:
        answer = conversation.ask(question, method=Method(), options=OPTIONS)
        assert session.prompt is not None
        turns.append((session.prompt.ids.tolist(), list(answer.token_ids)))
    return turns


@pytest.mark.slow
def test_qwen_equals_generate(thinker_folder: Path) -> None:
    model = Model(load(thinker_folder))
    theirs = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        thinker_folder, dtype=torch.float32
    )
    encode = model.adapter.text.encode
    start, end, video = (
        model.adapter.text.id(t) for t in ("<|im_start|>", "<|im_end|>", "<|VIDEO|>")
    )
    for mix in MIXES:
        clip = features(mix)
        with model.features(clip) as session:
            turns = talk(session)
        # The chat as the published template writes it, from its second turn on.
        chat = turns[0][0]
        for number, (ids, answer) in enumerate(turns):
            assert ids == chat, mix
            wanted = reference(theirs, torch.tensor(ids), clip, sorted(model.adapter.stop_ids))
            assert answer == wanted, mix
            if number + 1 < len(turns):
                said = encode(f"user\n{QUESTIONS[number + 1]}")[0]
                chat = [*chat, *answer, end, *encode("\n")[0], start, *said, end,
                        *encode("\n")[0], start, *encode("assistant\n")[0]]  # fmt: skip
        assert turns[2][0].count(video) == turns[0][0].count(video)
        assert len(set(turns[1][1])) > 3


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, MadeUpOmni]:
    folder = write_checkpoint(tmp_path_factory.mktemp("made-up"))
    options = LoadOptions(model=str(folder), device="cpu", dtype="float32", offline=True)
    return Model(load_adapter(options)), random_model(MadeUpConfig(), seed=0)


@pytest.mark.parametrize(
    "mix",
    [
        pytest.param(mix, marks=[] if mix in ("with sound", "no media") else pytest.mark.slow)
        for mix in MIXES
    ],
)
def test_another_family_equals_its_reference(made_up: tuple[Model, MadeUpOmni], mix: str) -> None:
    model, theirs = made_up
    clip = features(mix, width=192, bins=40)
    with model.features(clip) as session:
        turns = talk(session)
        prompt = session.prompt
    assert prompt is not None
    encode, config = model.adapter.text.encode, theirs.config
    chat = turns[0][0]
    for number, (ids, answer) in enumerate(turns):
        assert ids == chat
        wanted = theirs.generate(
            ids,
            patches=clip.patches,
            grid=clip.grid,
            second_per_grid=clip.second_per_grid,
            mel=clip.mel,
            tokens=TOKENS,
        )
        assert answer == wanted
        if number + 1 < len(turns):
            said = encode(QUESTIONS[number + 1])[0]
            chat = [*chat, *answer, config.end, config.user, *said, config.end, config.model]
    positions = reference_positions(config, turns[-1][0], clip.grid, clip.second_per_grid)
    torch.testing.assert_close(prompt.positions, positions, rtol=0, atol=1e-4)
