from dataclasses import dataclass

from omnidrop.pruning import schedules
from omnidrop.pruning.method import Entry, LayerMethod
from omnidrop.pruning.methods.omnidrop import omnidrop_path
from omnidrop.pruning.parts.select import top


@dataclass(frozen=True)
class Loudest(LayerMethod):
    """Lets the tokens with the largest embeddings in, then drops once by the question."""

    name = "loudest"
    turn: float = 0.5

    def plan(self, tokens, layers):
        path = omnidrop_path(self.budget, shape="step", t_mid=self.turn)
        return schedules.solve(self.budget, len(tokens), layers, path)

    def enter(self, view, plan):
        return Entry(top(view.embeds.float().norm(dim=-1), plan.counts[0]).cpu())

    def keep(self, view, count):
        return top(view.attention("question"), count)
