"""Downloads a model's files from the Hugging Face hub into its cache.

The cache keeps the layout of `huggingface_hub`, so that both find each other's files: `blobs/HASH`,
`snapshots/COMMIT/NAME` (a link to a blob) and `refs/REVISION`. The transfer itself is written here,
because the library's begins a file from its start after an interruption, waits minutes for a hub
that is silent, and takes all files or none. Here

- a file goes on where it ended, also after the process has ended;
- a hub that sends nothing for `silence()` seconds is an error;
- Ctrl-C ends it at once, wherever it waits: the network is left to a thread.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from omnidrop.errors import ModelError
from omnidrop.stages import Progress

Result = TypeVar("Result")

#: Seconds without a byte after which the hub counts as silent.
SILENCE = 30.0
#: Attempts in a row that bring nothing, and seconds between them.
ATTEMPTS, PAUSE = 3, 1.0
#: Seconds between looks at the thread that downloads.
LOOK = 0.1
#: Suffix of a file that is not complete.
PART = ".omnidrop-part"

_COMMIT = re.compile(r"[0-9a-f]{40}")


def silence() -> float:
    """Return the seconds without a byte after which a download ends.

    HF_HUB_DOWNLOAD_TIMEOUT sets them, as for the hub's own library.
    """
    try:
        seconds = float(os.environ["HF_HUB_DOWNLOAD_TIMEOUT"])
    except (KeyError, ValueError):
        return SILENCE
    return seconds if 0 < seconds < math.inf else SILENCE


def split_revision(model: str) -> tuple[str, str | None]:
    """Return the parts of NAME or NAME@REVISION; the revision is a branch, a tag or a commit."""
    name, _, revision = model.partition("@")
    return name, revision or None


def home(repository: str) -> Path:
    """Return the folder of a repository in the hub's cache, which need not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / ("models--" + repository.replace("/", "--"))


def snapshot(repository: str, revision: str | None = None) -> Path | None:
    """Return the folder of a revision in the cache, complete or not; None if there is none."""
    place, wanted = home(repository), revision or "main"
    try:
        ref = place / "refs" / wanted
        commit = ref.read_text(encoding="utf-8").strip() if ref.is_file() else wanted
        folder = place / "snapshots" / commit
        return folder if (folder / "config.json").is_file() else None
    except (OSError, ValueError):
        return None


def held(repository: str) -> int:
    """Return the bytes of a repository's files in the cache, incomplete ones included."""
    try:
        with os.scandir(home(repository) / "blobs") as blobs:
            return sum(blob.stat().st_size for blob in blobs if blob.is_file())
    except OSError:
        return 0


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub.

    Attributes
    ----------
    name : str
    size : int
        Bytes.
    blob : str
        Its name in the cache: the hash that the hub sends as ETag.
    sha256 : str or None
        Hash of its content, of large files.
    """

    name: str
    size: int
    blob: str
    sha256: str | None


class Remote:
    """A revision of a repository on the hub; made by `open`.

    Attributes
    ----------
    repository : str
    revision : str or None
        As asked; None is the main branch.
    commit : str
        The commit that it stands for.
    files : dict
        `RemoteFile` by name.
    """

    def __init__(
        self, repository: str, revision: str | None, commit: str, files: Sequence[RemoteFile]
    ) -> None:
        self.repository, self.revision, self.commit = repository, revision, commit
        self.files = {file.name: file for file in files}

    @classmethod
    def open(cls, repository: str, revision: str | None = None) -> Remote:
        """List the files of a repository.

        Raises
        ------
        ModelError
            If the hub has no such model or revision, refuses it, fails or is silent, or is not to
            be used (HF_HUB_OFFLINE).
        """
        from huggingface_hub import HfApi, constants

        constants.HF_HUB_DISABLE_TELEMETRY = True

        def ask() -> Any:
            return HfApi(endpoint=constants.ENDPOINT).model_info(
                repository, revision=revision, files_metadata=True, timeout=silence()
            )

        try:
            info = _apart(ask, _Transfer())
        except Exception as error:
            raise explained(repository, revision, error) from error
        files = []
        for entry in info.siblings or ():
            lfs = entry.lfs or {}
            blob = lfs.get("sha256") or entry.blob_id
            if blob is not None and entry.size is not None and "/" not in entry.rfilename:
                files.append(RemoteFile(entry.rfilename, entry.size, blob, lfs.get("sha256")))
        return cls(repository, revision, info.sha, files)

    @property
    def folder(self) -> Path:
        """Folder of the files in the cache."""
        return home(self.repository) / "snapshots" / self.commit

    def missing(self, names: Sequence[str]) -> list[RemoteFile]:
        """Return the files that are not in the cache, or not in their full size."""
        return [
            file
            for file in (self.files[name] for name in names)
            if not _has_size(self.folder / file.name, file.size)
        ]

    def fetch(self, names: Sequence[str], progress: Progress | None = None) -> None:
        """Download the files that are missing.

        Parameters
        ----------
        names : sequence of str
            Keys of `files`.
        progress : callable, optional

        Raises
        ------
        ModelError
            As `open`, and if the disk is full or cannot be written.
        """
        wanted = self.missing(names)
        sizes = [_size(self._part(file)) for file in wanted]
        transfer = _Transfer(done=sum(sizes), total=sum(file.size for file in wanted))
        try:
            self._check_room(transfer.total - transfer.done)

            def all_files() -> None:
                for file in wanted:
                    self._fetch(file, transfer)

            _apart(all_files, transfer, progress, f"download {self.repository}")
        except Exception as error:
            raise explained(self.repository, self.revision, error) from error

    def finish(self) -> None:
        """Write down that the revision stands for this commit."""
        wanted = self.revision or "main"
        if _COMMIT.fullmatch(wanted):
            return
        try:
            ref = home(self.repository) / "refs" / wanted
            ref.parent.mkdir(parents=True, exist_ok=True)
            ref.write_text(self.commit, encoding="utf-8")
        except OSError as error:
            raise explained(self.repository, self.revision, error) from error

    def _check_room(self, need: int) -> None:
        place = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        free = shutil.disk_usage(place).free
        if need > free:
            raise ModelError(
                f"{self.repository} needs {need / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are "
                "free.",
                path=place,
                hint="Free some disk space, or set HF_HOME to another folder.",
            )

    def _blob(self, file: RemoteFile) -> Path:
        return home(self.repository) / "blobs" / file.blob

    def _part(self, file: RemoteFile) -> Path:
        return self._blob(file).with_name(file.blob + PART)

    def _fetch(self, file: RemoteFile, transfer: _Transfer) -> None:
        """Download one file, and link it under its name."""
        from huggingface_hub.utils import WeakFileLock

        blob, part = self._blob(file), self._part(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        place = home(self.repository)
        lock = place.parent / ".locks" / place.name / f"{file.blob}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):  # the lock that the hub's library takes
            if not _has_size(blob, file.size):
                self._complete(file, part, transfer)
                _check_content(file, part)
                os.replace(part, blob)
            _link(blob, self.folder / file.name)

    def _complete(self, file: RemoteFile, part: Path, transfer: _Transfer) -> None:
        """Download what a file lacks, in as many attempts as bring something."""
        failures = 0
        while True:
            before = _size(part)
            try:
                self._attempt(file, part, transfer)
                return
            except (_Stopped, ModelError):
                raise
            except Exception as error:
                failures = 1 if _size(part) > before else failures + 1
                if failures >= ATTEMPTS or not _passes(error):
                    raise
                if transfer.stopped.wait(PAUSE):
                    raise _Stopped from error

    def _attempt(self, file: RemoteFile, part: Path, transfer: _Transfer) -> None:
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        url = f"{constants.ENDPOINT}/{self.repository}/resolve/{self.commit}/{quote(file.name)}"
        have = _size(part)
        if have > file.size:
            part.unlink()
            transfer.done -= have
            have = 0
        if have == file.size and part.exists():
            return
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        session: Any = get_session()
        with session.stream(
            "GET", url, headers=headers, timeout=silence(), follow_redirects=True
        ) as response:
            hf_raise_for_status(response)
            if have and response.status_code != 206:  # the whole file comes again
                transfer.done -= have
                have = 0
            with part.open("ab" if have else "wb") as out:
                for chunk in response.iter_bytes():
                    if transfer.stopped.is_set():
                        raise _Stopped
                    out.write(chunk)
                    transfer.done += len(chunk)
        if _size(part) != file.size:
            raise ConnectionError(f"{file.name} ended at {_size(part)} of {file.size} bytes")


@dataclass
class _Transfer:
    """What a download's thread and its caller tell each other."""

    done: int = 0
    total: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)


class _Stopped(Exception):
    """The caller no longer waits."""


def _apart(
    work: Callable[[], Result],
    transfer: _Transfer,
    progress: Progress | None = None,
    stage: str = "",
) -> Result:
    """Run `work` in a thread, so that Ctrl-C ends the wait for it wherever it stands."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="omnidrop-hub", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(LOOK)
            if progress is not None and transfer.total:
                progress(stage, transfer.done, transfer.total)
    finally:
        transfer.stopped.set()
    if errors:
        raise errors[0]
    return results[0]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and _size(path) == size


def _check_content(file: RemoteFile, part: Path) -> None:
    """Compare a file's hash with the hub's."""
    if file.sha256 is None:
        return
    with part.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        part.unlink()
        raise ModelError(
            f"{file.name} did not arrive as it is on the hub.", hint="Run the same command again."
        )


def _link(blob: Path, name: Path) -> None:
    """Give a blob its name in the snapshot."""
    name.parent.mkdir(parents=True, exist_ok=True)
    name.unlink(missing_ok=True)
    try:
        name.symlink_to(os.path.relpath(blob, name.parent))
    except OSError:  # no links on this file system
        os.replace(blob, name)


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error is about."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _timed_out(error: BaseException) -> bool:
    """Whether an error of any HTTP library is about time."""
    return any("Timeout" in kind.__name__ for kind in type(error).__mro__)


def _passes(error: Exception) -> bool:
    """Whether another attempt may do better: the connection broke, or the hub failed."""
    if _timed_out(error):
        return False
    status = _status(error)
    if status is not None:
        return status >= 500
    return not (isinstance(error, OSError) and error.errno is not None)


def explained(repository: str, revision: str | None, error: Exception) -> ModelError:
    """Return the error about a download as a `ModelError`, by its cause."""
    from huggingface_hub import errors

    if isinstance(error, ModelError):
        return error
    status = _status(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ModelError(
            f"{repository} is not complete on this machine, and HF_HUB_OFFLINE is set.",
            hint=f"Unset it once, and type: omnidrop models get {repository}",
        )
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return ModelError(
            f"{repository} needs a permission of its owner.",
            hint=f"Ask for it at https://huggingface.co/{repository}, then type: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(
            f"{repository} has no revision {revision!r}.",
            hint="Give a branch, a tag or a commit after the @.",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return ModelError(
            f"The hub has no such model as {repository}, or it is private.",
            hint="Check the name; for a private model type: hf auth login",
        )
    if status == 429:
        return ModelError(
            "The hub has had too many requests from here for now.",
            hint="Wait some minutes, then run the same command again; it goes on where it ended.",
        )
    if status is not None:
        return ModelError(
            f"The hub cannot send {repository} now (it answers {status}).",
            hint="Run the same command again later; it goes on where it ended.",
        )
    if _timed_out(error):
        return ModelError(
            f"The hub has sent nothing for {silence():g} s.",
            hint="Run the same command again; it goes on where it ended.",
        )
    if isinstance(error, OSError) and error.errno is not None and not _network(error):
        return ModelError(
            f"{repository} cannot be saved: {error.strerror}.",
            path=error.filename or home(repository),
            hint="Free some disk space, or set HF_HOME to another folder.",
        )
    return ModelError(
        f"{repository} is not complete on this machine and the hub cannot be reached "
        f"({type(error).__name__}).",
        hint="Check the network, or use a model that is here: omnidrop models",
    )


def _network(error: OSError) -> bool:
    return isinstance(error, ConnectionError)
