"""Other libraries' warnings and download bars, kept off stderr."""

from __future__ import annotations

import logging
import os
import warnings


def silence_warnings(debug: bool) -> None:
    """Keep other libraries' warnings off stderr; notices worth reading are in the Trace."""
    if not debug:
        warnings.simplefilter("ignore")
        for name in ("bitsandbytes", "transformers", "accelerate", "torch"):
            logging.getLogger(name).setLevel(logging.ERROR + 1)
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def hide_download_bars() -> None:
    """Show no download bars: stderr is not a terminal, or --quiet was given."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
