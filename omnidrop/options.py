"""How a model is loaded and how an answer is made: frozen values, checked when made.

They import nothing, so that a command line can read defaults and refuse mistakes before torch is
imported. What to take of a clip is in `omnidrop.clip.options`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from omnidrop.errors import UsageError

#: Share of audio and video tokens kept when nobody says otherwise (the paper's main setting).
DEFAULT_BUDGET = 0.3

#: Names of a dtype; what stands first of a pair is torch's name for it.
DTYPES = ("auto", "bfloat16", "bf16", "float16", "fp16", "float32", "fp32")
#: Bits that weights can be quantised to.
QUANTIZE = ("4bit", "8bit")
#: Implementations of attention.
ATTENTION = ("sdpa", "eager", "flash", "flash_attention_2")

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True)
class LoadOptions:
    """Which model, where, and how precise.

    Parameters
    ----------
    model : str or None
        A folder, a hub name, an alias ("3b", "7b", "demo"); None takes a model of a known family
        from the hub's cache, or else the demo model.
    device : str
        "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
    dtype : str
        "auto", "bfloat16", "float16" or "float32". Auto: the checkpoint's own on a GPU; on a CPU
        float32 for the demo model, for a float32 checkpoint and where the processor has no
        arithmetic for bfloat16, else bfloat16.
    quantize : {None, "4bit", "8bit"}
        Quantise the language model's linear layers (bitsandbytes); the encoders keep `dtype`.
    attention : {"sdpa", "flash", "eager"}
        Flash attention must be installed; eager is slow and there for comparisons.
    offline : bool
        Never use the network.

    Raises
    ------
    UsageError
        If a value is not valid.
    """

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    attention: str = "sdpa"
    offline: bool = False

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f"There is no device {self.device!r}.", hint="Use auto, cpu, cuda, cuda:0 or mps."
            )
        if self.dtype not in DTYPES:
            raise UsageError(
                f"There is no dtype {self.dtype!r}.", hint="Use auto, bfloat16, float16 or float32."
            )
        if self.quantize not in (None, *QUANTIZE):
            raise UsageError(
                f"There is no quantisation {self.quantize!r}.", hint="Use 4bit or 8bit, or neither."
            )
        if self.attention not in ATTENTION:
            raise UsageError(
                f"There is no attention {self.attention!r}.", hint="Use sdpa, flash or eager."
            )


@dataclass(frozen=True)
class GenerateOptions:
    """How the answer is made.

    Parameters
    ----------
    max_new_tokens : int
        At least 1.
    temperature : float
        0 is greedy; otherwise logits are divided by it and a token is drawn.
    top_p : float
        Draw from the smallest set of tokens whose probabilities sum to at least this, in (0, 1].
    seed : int
        Of every draw, the method's included.
    logprobs : bool
        Keep the log-probability of each generated token.
    survivors : bool
        Keep in the Trace which tokens entered each layer.

    Raises
    ------
    UsageError
        If a value is not valid.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    logprobs: bool = False
    survivors: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(
                f"max_new_tokens must be 1 or more, not {self.max_new_tokens}.",
                hint=f"The default is {GenerateOptions.max_new_tokens}.",
            )
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UsageError(
                f"temperature must be 0 or more, not {self.temperature:g}.",
                hint="Use 0 for greedy decoding or a positive number such as 0.7.",
            )
        if not 0 < self.top_p <= 1:
            raise UsageError(
                f"top_p must be above 0 and up to 1, not {self.top_p:g}.", hint="Try 0.9."
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be 0 or more, not {self.seed}.", hint="0 is the default.")
