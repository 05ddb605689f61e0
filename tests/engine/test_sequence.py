"""Rows: text is always kept, and indices are right with and without text between AV tokens."""

from __future__ import annotations

import pytest
import torch

from omnidrop.engine.sequence import Block, Rows, Split, Whole
from omnidrop.pruning.method import Entry


def block(rows: torch.Tensor) -> Block:
    """Rows whose states and angles are their prompt indices."""
    states = rows.float()[None, :, None]
    return Block.of(states, (states, states))


@pytest.mark.parametrize("head", [0, 8])
@pytest.mark.parametrize("parted", [False, True])
def test_keeping_some_of_the_rows(head: int, parted: bool) -> None:
    alive = torch.tensor([0, 1, 4, 6, 7, 9, 10, 12, 15, 16])
    av = torch.tensor([2, 4, 5, 7]) if parted else torch.tensor([2, 3, 4, 5, 6, 7])
    text = torch.tensor([i for i in range(10) if i not in av.tolist()])
    rows = Rows(alive, av, None if parted else 2, torch.arange(20))
    assert rows.text.tolist() == text.tolist()
    planes = (av.float()[:, None],)
    sequence = (
        Split(rows, block(alive[:head]), block(alive[head:]), planes)
        if head
        else Whole(rows, block(alive), planes)
    )
    left = sequence.keep(Entry(torch.tensor([1, 3])))
    wanted = sorted([*text.tolist(), *av[[1, 3]].tolist()])
    assert left.rows.alive.tolist() == alive[wanted].tolist()
    assert left.rows.survivors.tolist() == alive[av[[1, 3]]].tolist()
    assert left.rows.alive[left.rows.text].tolist() == alive[text].tolist()
    states = torch.cat([b.hidden.flatten() for b in left.blocks])
    assert states.long().tolist() == left.rows.alive.tolist()
    assert left.planes[0].flatten().long().tolist() == av[[1, 3]].tolist()
    assert len(left.blocks[-1]) == (2 if head else len(wanted))
