"""Options of loading a model and of generating an answer, validated when they are created.

This module does not import torch, so a command line can read defaults and report mistakes before
torch is imported. Options of sampling a clip are in `omnidrop.clip.options`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from omnidrop.errors import UsageError

#: Default budget: share of audio and video tokens kept (the paper's main setting).
DEFAULT_BUDGET = 0.3

#: Names of dtypes; each short name follows torch's own.
DTYPES = ("auto", "bfloat16", "bf16", "float16", "fp16", "float32", "fp32")
#: Bits that weights can be quantised to.
QUANTIZE = ("4bit", "8bit")
#: Implementations of attention.
ATTENTION = ("sdpa", "eager", "flash", "flash_attention_2")

#: Largest whole number that an option takes, a seed excepted: more overflows somewhere.
LARGEST = 2**31 - 1

#: Lowest temperature above 0: logits divided by less overflow in float32. And the highest.
TEMPERATURES = (1e-6, 1e6)

#: Most alternatives to a token whose log-probabilities are returned.
TOP_LOGPROBS = 20

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,2})?", re.ASCII)


def check_size(name: str, value: float, largest: float = LARGEST) -> None:
    """Refuse a value that is larger than anything could use, and would overflow.

    Raises
    ------
    UsageError
        Names the option and the largest value.
    """
    if value > largest:
        raise UsageError(f"{name} is too large.", hint=f"Give at most {largest:,}.")


@dataclass(frozen=True)
class LoadOptions:
    """Which model to load, on which device, in which precision.

    Parameters
    ----------
    model : str or None
        A folder, a hub name or an alias ("3b", "7b", "demo"), the latter two also with @REVISION: a
        branch, a tag or a commit. None takes a model of a known family from the hub's cache, or
        else the demo model.
    device : str
        "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
    dtype : str
        "auto", "bfloat16", "float16" or "float32". Auto: on a GPU the checkpoint's own; on a CPU
        float32 for the demo model, for a float32 checkpoint, and if the CPU has no bfloat16
        arithmetic; else bfloat16. On a CPU without it, auto leaves 16-bit weights in their files
        and widens each when it is used; "float32" widens all when they are loaded, in twice the
        memory.
    quantize : {None, "4bit", "8bit"}
        Quantise the language model's linear layers and experts; the encoders keep `dtype`. On a
        CPU the table of embeddings and the output layer take 8 bits as well.
    attention : {"sdpa", "flash", "eager"}
        Flash attention must be installed; eager is slow and meant for comparisons.
    offline : bool
        Never use the network.
    positions : str or None
        Convention by which positions of tokens are counted, for families with several (see
        `Family.conventions`); None for the family's own default.

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
    positions: str | None = None

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise UsageError(
                f"Unknown device {self.device!r}.", hint="Use auto, cpu, cuda, cuda:0 or mps."
            )
        if self.dtype not in DTYPES:
            raise UsageError(
                f"Unknown dtype {self.dtype!r}.", hint="Use auto, bfloat16, float16 or float32."
            )
        if self.quantize not in (None, *QUANTIZE):
            raise UsageError(
                f"Unknown quantisation {self.quantize!r}.", hint="Use 4bit, 8bit or neither."
            )
        if self.attention not in ATTENTION:
            raise UsageError(
                f"Unknown attention {self.attention!r}.", hint="Use sdpa, flash or eager."
            )


@dataclass(frozen=True)
class GenerateOptions:
    """How the answer is generated.

    Parameters
    ----------
    max_new_tokens : int
        At least 1.
    temperature : float
        0 is greedy; otherwise logits are divided by it and a token is sampled.
    top_p : float
        Sample from the smallest set of tokens whose probabilities sum to at least this, in (0, 1].
    seed : int
        Seed of all random numbers, the method's included.
    logprobs : bool
        Return the log-probability of each generated token.
    top_logprobs : int
        How many of the most probable tokens at each step `on_token` of `Session.ask` is told, 0 to
        20.
    stop : tuple of str
        Texts at which the answer ends; they are no part of it.
    survivors : bool
        Record in the Trace which tokens entered each layer.

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
    top_logprobs: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.top_logprobs <= TOP_LOGPROBS:
            raise UsageError(
                f"top_logprobs must be between 0 and {TOP_LOGPROBS}, not {self.top_logprobs}."
            )
        if not all(self.stop):
            raise UsageError("stop must not contain an empty text.")
        if self.max_new_tokens < 1:
            raise UsageError(
                f"max_new_tokens must be 1 or more, not {self.max_new_tokens}.",
                hint=f"The default is {GenerateOptions.max_new_tokens}.",
            )
        check_size("max_new_tokens", self.max_new_tokens)
        if not self.temperature >= 0:
            raise UsageError(
                "temperature must be 0 or more.",
                hint="Use 0 for greedy decoding or a positive number such as 0.7.",
            )
        lowest, highest = TEMPERATURES
        if self.temperature and not lowest <= self.temperature <= highest:
            raise UsageError(f"temperature must be 0, or between {lowest:f} and {highest:.0f}.")
        if not 0 < self.top_p <= 1:
            raise UsageError(
                f"top_p must be above 0 and up to 1, not {self.top_p:g}.", hint="Try 0.9."
            )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be 0 or more, not {self.seed}.", hint="0 is the default.")
