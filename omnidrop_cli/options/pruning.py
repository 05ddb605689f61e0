"""Which tokens are dropped: budget, method, preset and settings, as the library's method."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from omnidrop.errors import UsageError
from omnidrop.options import DEFAULT_BUDGET
from omnidrop_cli.options.groups import option
from omnidrop_cli.options.parsing import (
    check_budget,
    parse_budget,
    parse_pairs,
    parse_share,
)

if TYPE_CHECKING:
    from omnidrop import Method, Model
    from omnidrop.batch.answering import MethodChoice
    from omnidrop.recommended import Recommended

#: What `--budget auto` is, and the share of the question's attention that it keeps.
AUTO, DEFAULT_MASS = "omnidrop-auto", 0.85


@dataclass(frozen=True)
class DropFlags:
    """Which tokens are dropped."""

    budget: Annotated[
        Any,
        option(
            "--budget",
            "-b",
            panel="Token dropping",
            metavar="SHARE",
            parser=parse_budget,
            help="Share of audio and video tokens kept, mean over the layers, above 0 and up to 1; "
            "1 keeps all. Default: the model's own, see `omnidrop models`; with --method "
            f"{DEFAULT_BUDGET}. auto: what the question needs, up to {DEFAULT_BUDGET}.",
        ),
    ] = None
    keep_mass: Annotated[
        float | None,
        option(
            "--keep-mass",
            panel="Token dropping",
            metavar="P",
            parser=parse_share,
            help=f"With --budget auto: keep the tokens with this share of the question's attention "
            f"({DEFAULT_MASS}); less is cheaper.",
        ),
    ] = None
    method: Annotated[
        str | None,
        option(
            "--method",
            panel="Token dropping",
            metavar="NAME",
            help="One that `omnidrop models` lists; none keeps all. uniform+omnidrop: choose by "
            "the first when tokens enter, by the second in the layers. NAME@omnidelta: share the "
            "tokens between audio and video as OmniDelta does. Default: the model's own, "
            "and none where dropping would save less than a tenth of the time to the first token.",
        ),
    ] = None
    preset: Annotated[
        str | None,
        option(
            "--preset",
            panel="Token dropping",
            metavar="NAME",
            help="A published setting that `omnidrop models` lists, or a file from `omnidrop "
            "calibrate`.",
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        option(
            "--set",
            panel="Token dropping",
            metavar="NAME=VALUE",
            repeatable=True,
            help="A setting of the method, or of one of two: entry.seed=1, layers.rows=last; "
            "repeatable.",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.budget not in (None, "auto"):
            check_budget(self.budget)
        if self.budget == "auto" and (self.preset is not None or not self._can_be_auto):
            raise UsageError(
                f"--budget auto is the method {AUTO}, alone or joined like uniform+{AUTO}; it "
                "excludes --preset and other methods.",
                hint="Drop --method or --preset, or give a number.",
            )
        if self.preset is not None and self.method is not None:
            raise UsageError("A preset sets the method.", hint="Drop --method.")
        if self.preset is not None and self.budget is not None and not self.preset_file:
            raise UsageError("A preset sets the budget.", hint="Drop --budget or --preset.")
        if self.keep_mass is not None:
            if self.budget != "auto" and (self.method is None or not self._can_be_auto):
                raise UsageError("--keep-mass goes with --budget auto.", hint="Give both.")
            if not 0.0 < self.keep_mass < 1.0:
                raise UsageError(
                    f"--keep-mass {self.keep_mass:g} is not valid (0 < P < 1).",
                    hint=f"The default is {DEFAULT_MASS}.",
                )
        if self.method == "none" and self.budget not in (None, 1.0):
            raise UsageError(
                "--method none keeps every token.", hint="Drop --budget or choose another method."
            )
        parse_pairs(tuple(self.settings or ()))

    @property
    def _can_be_auto(self) -> bool:
        """Whether the method finds how much to keep from the question, if asked to."""
        return AUTO in re.split(r"[+@]", self.method or AUTO)

    @property
    def preset_file(self) -> Path | None:
        """Return the file that --preset names, if it names one."""
        name = self.preset
        if name is None or not (name.lower().endswith(".json") or Path(name).is_file()):
            return None
        return Path(name)

    @property
    def asks_model(self) -> bool:
        """Whether the method is left to the model."""
        auto = self.budget == "auto" or self.keep_mass is not None
        return self.method is None and self.preset is None and not auto

    def early(self) -> Method | None:
        """Return the method if it is known without the model; a bad one is refused at once."""
        return None if self.asks_model else self.pruning()

    def for_model(self, recommended: Recommended) -> Method | None:
        """Return the method for a model; None where nothing was asked, which leaves it to `ask`."""
        if self.asks_model and self.budget is None and not self.settings:
            return None
        return self.pruning(recommended)

    def choice(self) -> MethodChoice:
        """Return the method as a batch sends it to other processes.

        Raises
        ------
        UsageError
            As `pruning`.
        """
        from omnidrop.batch.answering import MethodChoice

        if self.asks_model:
            return MethodChoice(None, self.budget, parse_pairs(tuple(self.settings or ())))
        return MethodChoice.of(self.pruning())

    def reading(self, model: Model) -> Model:
        """Return the model with the reading of evidence that a preset file holds, if it does."""
        if self.preset_file is None:
            return model
        from omnidrop.pruning.presets import read_preset

        found = read_preset(self.preset_file).evidence
        return model if found is None else model.with_reading(found)

    def pruning(self, recommended: Recommended | None = None) -> Method:
        """Return the library's pruning method.

        Parameters
        ----------
        recommended : Recommended, optional
            The model's, for flags that name no method.

        Raises
        ------
        UsageError
            Unknown method, preset or setting, or a value that is not valid.
        """
        from omnidrop.pruning.presets import read_preset
        from omnidrop.pruning.registry import get_method, get_preset

        fields = parse_pairs(tuple(self.settings or ()))
        if self.asks_model and recommended is not None:
            from omnidrop.engine.default import method_of

            if not fields:
                return method_of(recommended, self.budget)
            at = {"budget": recommended.budget if self.budget is None else self.budget}
            return get_method(recommended.method, **{**recommended.settings, **at, **fields})
        if self.preset_file is not None:
            return read_preset(self.preset_file).at(self.budget, **fields)
        if self.preset is not None:
            published = get_preset(self.preset)
            return get_method(published.name, **published.settings() | fields)
        auto = self.budget == "auto"
        name = self.method or (AUTO if auto else "omnidrop")
        if auto or self.keep_mass is not None:
            fields.setdefault("keep_mass", DEFAULT_MASS)
            if self.keep_mass is not None:
                fields["keep_mass"] = self.keep_mass
        if name != "none":
            fields["budget"] = DEFAULT_BUDGET if self.budget in (None, "auto") else self.budget
        return get_method(name, **fields)
