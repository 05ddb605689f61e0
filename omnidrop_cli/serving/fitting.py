"""Whether a command gets from a warm model what it would get from a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import omnidrop
from omnidrop.errors import OmniDropError, UsageError
from omnidrop.models.locations import find
from omnidrop.options import LoadOptions
from omnidrop.serving.same_model import model_key, pinned, stamps
from omnidrop.serving.warm import WarmModel
from omnidrop.stages import Progress
from omnidrop_cli.options.common import ModelFlags
from omnidrop_cli.serving import protocol

#: Variables that libraries read when they are imported, and that answers may depend on.
LIBRARIES = (
    "ATEN_",
    "CUBLAS_",
    "CUDA_",
    "DNNL_",
    "MKL_",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "ONEDNN_",
    "PYTHONPATH",
    "PYTORCH_",
    "TORCH_",
    "TRANSFORMERS_",
)
#: Set by the command line itself where they are not set.
OURS = ("TRANSFORMERS_VERBOSITY",)
#: Variables by which models on the hub are found.
HUB = ("HF_", "HUGGINGFACE_", "HOME", "XDG_CACHE_HOME")


class Fitting:
    """Compares commands with a warm model.

    Parameters
    ----------
    warm : WarmModel
        Its options are pinned (`omnidrop.serving.same_model.pinned`).

    Raises
    ------
    OmniDropError
        If there is no such model.
    """

    def __init__(self, warm: WarmModel) -> None:
        self._warm = warm
        self._environment = dict(os.environ)
        location = find(warm.options.model, offline=True)
        self._key = model_key(warm.options, location)
        self._stamps = stamps(self._key.folder)
        root = os.stat("/")
        self._process = {
            "protocol": protocol.PROTOCOL,
            "version": omnidrop.__version__,
            "package": os.path.dirname(str(omnidrop.__file__)),
            "python": sys.version,
            "file_names": sys.getfilesystemencoding(),
            "root": [root.st_dev, root.st_ino],
        }

    def unlike(self, hello: Mapping[str, Any]) -> str:
        """Return how a client's process differs from this one; "" if in nothing that matters."""
        for name, value in self._process.items():
            if hello.get(name) != value:
                if name == "root":
                    return "its process sees other files"
                if name == "file_names":
                    return "its process reads file names in another encoding"
                return "its process is of another installation of omnidrop"
        environment = hello["environment"]
        if not isinstance(environment, dict):
            return "the environment is none"
        differs = self._differing(environment, LIBRARIES)
        return f"{differs} differs from that of its process" if differs else ""

    def why_not(self, command: str, parameters: Mapping[str, Any]) -> str:
        """Return why the warm model is none for this command; "" if it is.

        The environment and the folder are those of the command.

        Parameters
        ----------
        command : str
        parameters : mapping
            Values of its options, by their names in Python.
        """
        if command not in protocol.SERVED:
            return f"omnidrop {command} does not use one"
        if parameters.get("no_serve"):
            return "--no-serve asks for that"
        if parameters.get("debug"):
            return "--debug shows how a model is loaded"
        if (parameters.get("workers") or 1) > 1 or parameters.get("timeout"):
            return "--workers and --timeout take processes of their own"
        if parameters.get("ray") is not None:
            return "--ray answers on a cluster"
        if (parameters.get("workers") or 0) > 1 or parameters.get("timeout") is not None:
            return "--workers and --timeout take processes of their own"
        try:
            flags = ModelFlags(**{f.name: parameters[f.name] for f in fields(ModelFlags)})
            options = flags.load_options()
        except UsageError:
            return ""  # which the command says itself
        name = options.model
        on_hub = name is None or not (name.lower() == "demo" or os.path.isdir(name))
        differs = self._differing(os.environ, HUB) if on_hub else ""
        if differs:
            return f"{differs} differs from that of its process"
        try:
            asked = model_key(options)
        except OmniDropError as problem:
            return problem.paragraph().rstrip(".")
        return asked.difference(self._key)

    def renew(self) -> None:
        """Drop the model if its files have changed, so that it is loaded anew."""
        found = stamps(self._key.folder)
        if found != self._stamps and self._warm.unload():
            self._stamps = found

    def _differing(self, environment: Mapping[str, str], names: tuple[str, ...]) -> str:
        """Return the first variable with one of these beginnings that is not as it is here."""
        for name in sorted(environment.keys() | self._environment.keys()):
            same = environment.get(name) == self._environment.get(name)
            if not same and name.startswith(names) and name not in OURS:
                return name
        return ""


def pin(options: LoadOptions, progress: Progress | None = None) -> LoadOptions:
    """Return the options of a model as `omnidrop serve` keeps them; download what is missing.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    location = find(options.model, offline=options.offline, progress=progress)
    return pinned(options, location)
