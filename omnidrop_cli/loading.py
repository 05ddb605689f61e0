"""How every command loads its model: with progress on a terminal, or one line of a download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omnidrop_cli.libraries import downloads

if TYPE_CHECKING:
    from omnidrop import Model
    from omnidrop_cli.options.common import ModelFlags
    from omnidrop_cli.terminal.progress import Progress


def load_model(flags: ModelFlags, progress: Progress, *, quiet: bool) -> Model:
    """Load the model that the options name.

    Parameters
    ----------
    flags : ModelFlags
    progress : Progress
        Shows the loading, and a download before it; finished afterwards.
    quiet : bool
        Whether the line about a download is left out.

    Raises
    ------
    OmniDropError
        Whatever `omnidrop.load` raises.
    """
    progress("load the model", 0, None)
    import omnidrop

    loaded = omnidrop.load(flags.load_options(), progress=downloads(progress, quiet=quiet))
    progress.finish()
    return loaded
