"""How many operations a pruned layer takes outside the model: each is a launch on a GPU."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from omnidrop.engine.model import Model
from omnidrop.engine.prefill import prefill
from omnidrop.engine.timing import Meter
from omnidrop.prompt import build_prompt
from omnidrop.pruning.methods.omnidrop import OmniDrop
from tests.tiny import make_features

QUESTION = "What instrument plays first?"

#: Operations between two layers: relevance, choice, and gathering what goes on.
PRUNED = 13
#: What temporal diversity adds.
DIVERSITY = 17


class Operations(TorchDispatchMode):
    """Counts operations that write memory, by the layer passed last; those of the model are not.

    A view, and a conversion to the dtype and device that a tensor has already, write nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer = -1
        self.inside = False
        self.found: dict[int, Counter[str]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        given, made = (
            {t.untyped_storage().data_ptr() for t in tree_leaves(tree) if torch.is_tensor(t)}
            for tree in ((args, kwargs), out)
        )
        writes = func._schema.is_mutable or not made or bool(made - given)
        if writes and not self.inside and "empty" not in name:
            self.found.setdefault(self.layer, Counter())[name] += 1
        return out


@pytest.mark.parametrize("diversity", [0.0, 0.2])
def test_a_pruned_layer_takes_few(
    model: Model, monkeypatch: pytest.MonkeyPatch, diversity: float
) -> None:
    features = make_features(grid=(16, 16, 16), mel_frames=1600, model=model)
    with model.features(features) as clip:
        encoded = clip.encode()
    adapter = model.adapter
    prompt = build_prompt(adapter.text, adapter.template, QUESTION, encoded.media)
    counted = Operations()

    for name in ("layer", "cache_kv", "queries", "logits"):
        own = getattr(adapter, name)

        def inside(*args: Any, own: Any = own, name: str = name) -> Any:
            if name == "layer":
                counted.layer = args[0]
            counted.inside = True
            try:
                return own(*args)
            finally:
                counted.inside = False

        monkeypatch.setattr(adapter, name, inside)
    method = OmniDrop(budget=0.2, p_init=0.1, diversity=diversity, diversity_from=0)
    with counted:
        done = prefill(adapter, prompt, encoded, method, Meter(adapter.device))
    entered = [len(index) for index in done.device_survivors]
    assert all(after < before for before, after in pairwise(entered))
    most = PRUNED + (DIVERSITY if diversity else 0)
    planes = len(encoded.planes) - 1
    for layer in range(1, adapter.info.text.layers - 1):  # the first makes what all share
        operations = counted.found[layer]
        allowed = most + 2 * max(planes - layer, 0)  # a plane is added, and those left gathered
        assert 0 < operations.total() <= allowed, (layer, operations)
