"""A hub id or a local folder in the diffusers layout in; single files of it out, as needed."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from kornia_ditf.errors import (
    CheckpointError,
    GatedRepositoryError,
    HubError,
    HubUnreachableError,
)

WEIGHTS = "diffusion_pytorch_model"
_TEXT_PARTS = ("text_encoder", "tokenizer")
_TIMEOUT_SECONDS = 10.0


class Checkpoint:
    """A model's files, in a local folder or on the hub; nothing is fetched before it is asked for.

    Args:
        source: a hub id such as `black-forest-labs/FLUX.1-dev`, or a folder.
        revision: branch, tag or commit on the hub; None is its main branch.
        token: hub token; None takes the one that `hf auth login` stored.
        cache_dir: the hub's download cache; None is its default.
        local_files_only: never ask the hub, take what is cached.

    Raises:
        CheckpointError: neither a folder nor a hub id.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.source, self.revision, self.token = str(source), revision, token
        self.cache_dir = None if cache_dir is None else str(cache_dir)
        self.local_files_only = local_files_only
        folder = Path(source).expanduser()
        self.folder = folder if folder.is_dir() else None
        if self.folder is None and not is_hub_id(self.source):
            raise CheckpointError(
                f"{self.source} is no folder, and no hub id of the form owner/name"
            )

    @cached_property
    def identity(self) -> str:
        """Which weights these are: the hub's commit, or a digest of a folder's files.

        A folder's weights are told apart by name, size and time of change, not read. Its text
        encoders do not count: they may go once their prompts are cached (`text_identity`).
        """
        if self.folder is None:
            if self._remote is not None:
                return f"{self.source}@{self._remote.sha}"
            # A pipeline has the first, a single model of transformers the second alone.
            index = "model_index.json" if self.exists("model_index.json") else "config.json"
            return f"{self.source}@{self.file(index).parent.name}"
        files = [name for name in self.files() if not name.startswith(_TEXT_PARTS)]
        return f"{self.folder.name}@{self._digest(self.folder, files)}"

    @cached_property
    def text_identity(self) -> str | None:
        """Which text encoders a folder holds; None where it holds none.

        On the hub, `identity` says it all.
        """
        if self.folder is None:
            return self.identity
        files = [name for name in self.files() if name.startswith(_TEXT_PARTS)]
        return self._digest(self.folder, files) if files else None

    @staticmethod
    def _digest(folder: Path, files: list[str]) -> str:
        digest = hashlib.sha256()
        for name in files:
            path = folder / name
            if path.suffix == ".json":
                digest.update(path.read_bytes())
            elif path.suffix == ".safetensors":
                stat = path.stat()
                digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}".encode())
        return digest.hexdigest()[:40]

    def exists(self, name: str) -> bool:
        """Tell whether the model has a file, by its path inside the repository."""
        if self.folder is not None:
            return (self.folder / name).is_file()
        if self._remote is not None:
            return name in self._remote_sizes
        try:
            self.file(name)
        except (CheckpointError, HubUnreachableError):
            return False
        return True

    def file(self, name: str) -> Path:
        """Give the local path of a file, downloading it if it is not cached.

        Raises:
            CheckpointError: the model has no such file.
            GatedRepositoryError: the repository wants its licence accepted first.
            HubError: the hub does not give it.
        """
        if self.folder is not None:
            path = self.folder / name
            if not path.is_file():
                raise self._missing(name)
            return path
        if self._remote is not None and name not in self._remote_sizes:
            raise self._missing(name)
        return self._download(name)

    def size(self, name: str) -> int:
        """Give a file's size in bytes, without downloading it.

        Raises:
            CheckpointError: the model has no such file.
        """
        if self.folder is None and self._remote is not None:
            if name not in self._remote_sizes:
                raise self._missing(name)
            return self._remote_sizes[name]
        return self.file(name).stat().st_size

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON file that holds an object.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        path = self.file(name)
        try:
            content = json.loads(path.read_text("utf-8"))
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); get it anew") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} must hold a JSON object")
        return content

    def weight_map(self, subfolder: str) -> dict[str, str] | None:
        """Read which shard holds each tensor: tensor name to file; None where there is one file.

        Raises:
            CheckpointError: the index is damaged.
        """
        index = f"{subfolder}/{WEIGHTS}.safetensors.index.json"
        if not self.exists(index):
            return None
        names = self.json(index).get("weight_map")
        if not isinstance(names, dict):
            raise CheckpointError(f"{self.source}/{index} has no weight_map; get it anew")
        return {tensor: f"{subfolder}/{file}" for tensor, file in names.items()}

    def shards(self, subfolder: str) -> dict[str, str]:
        """Tell which file of a model's part holds each tensor: tensor name to file.

        Raises:
            CheckpointError: there are no safetensors weights, or they are damaged.
        """
        stored = self.weight_map(subfolder)
        if stored is not None:
            return stored
        single = f"{subfolder}/{WEIGHTS}.safetensors"
        return dict.fromkeys(read_header(self.file(single)), single)

    def files(self) -> list[str]:
        """List the model's files.

        Raises:
            HubUnreachableError: the hub cannot be asked.
        """
        if self.folder is not None:
            paths = (path for path in self.folder.rglob("*") if path.is_file())
            return sorted(path.relative_to(self.folder).as_posix() for path in paths)
        if self._remote is None:
            raise HubUnreachableError(f"the hub cannot be asked what {self.source} holds")
        return sorted(self._remote_sizes)

    def has(self, name: str) -> bool:
        """Tell whether a file is on this machine already."""
        if self.folder is not None:
            return (self.folder / name).is_file()
        from huggingface_hub import try_to_load_from_cache

        revision = self.revision if self._remote is None else self._remote.sha
        cached = try_to_load_from_cache(
            self.source, name, cache_dir=self.cache_dir, revision=revision
        )
        return isinstance(cached, str)

    def pretrained_options(self) -> dict[str, Any]:
        """Give what diffusers' own `from_pretrained` needs to load these very files.

        The commit is pinned, so that what it loads cannot differ from what was read before, and
        where the hub cannot be asked it is not asked again.
        """
        options = {"token": self.token, "cache_dir": self.cache_dir, "use_safetensors": True}
        if self.folder is not None:
            source, revision, local = str(self.folder), None, True
        elif self._remote is not None:
            source, revision, local = self.source, self._remote.sha, False
        else:
            source, revision, local = self.source, self.revision, True
        return {
            "pretrained_model_name_or_path": source,
            "revision": revision,
            "local_files_only": local,
            **options,
        }

    def _missing(self, name: str) -> CheckpointError:
        advice = ": it is incomplete; download it again"
        pickles = (name.replace(".safetensors", f".bin{end}") for end in ("", ".index.json"))
        if name.endswith(".safetensors") and any(self.exists(file) for file in pickles):
            advice = (
                ", only a pickled .bin, which is not read because it can run code; "
                "name a revision or a repository that has safetensors"
            )
        return CheckpointError(f"{self.source} has no {name}{advice}")

    @cached_property
    def _remote(self) -> Any:
        """What the hub says of the repository; None where the hub cannot be asked."""
        if self.local_files_only:
            return None
        # Asked first, because it fails at once without network, where a download retries long.
        from huggingface_hub import HfApi, errors

        connection_errors: Any = getattr(errors, "HTTPError", OSError)  # of its HTTP library
        try:
            return HfApi(token=self.token).model_info(
                self.source,
                revision=self.revision,
                files_metadata=True,
                timeout=_TIMEOUT_SECONDS,
            )
        except errors.RevisionNotFoundError as error:
            raise HubError(f"{self.source} has no revision {self.revision!r}") from error
        except errors.HfHubHTTPError as error:
            if _is_refusal(error):
                raise self._refused(error) from error
            return None
        except (errors.OfflineModeIsEnabled, connection_errors, OSError):
            return None

    @cached_property
    def _remote_sizes(self) -> dict[str, int]:
        return {file.rfilename: file.size or 0 for file in self._remote.siblings or ()}

    def _download(self, name: str) -> Path:
        from huggingface_hub import errors, hf_hub_download

        remote = self._remote
        try:
            path = hf_hub_download(
                self.source,
                name,
                revision=self.revision if remote is None else remote.sha,
                token=self.token,
                cache_dir=self.cache_dir,
                local_files_only=remote is None,
                etag_timeout=_TIMEOUT_SECONDS,
            )
        except errors.LocalEntryNotFoundError as error:
            raise HubUnreachableError(
                f"{name} of {self.source} is not cached and the hub cannot be reached; "
                "connect, or give a local folder with source=..."
            ) from error
        except errors.EntryNotFoundError as error:
            raise self._missing(name) from error
        except errors.HfHubHTTPError as error:
            if _is_refusal(error):
                raise self._refused(error) from error
            raise HubError(f"the hub does not give {name} of {self.source}: {error}") from error
        except OSError as error:
            raise HubError(f"cannot download {name} of {self.source}: {error}") from error
        return Path(path)

    def _refused(self, error: Exception) -> HubError:
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

        page = f"https://huggingface.co/{self.source}"
        # A gated repository counts as one not found there, so it is asked first.
        missing = isinstance(error, RepositoryNotFoundError)
        if missing and not isinstance(error, GatedRepoError):
            return HubError(
                f"the hub shows no {self.source}: check the name; "
                f"if it is private, run `hf auth login` with an account that sees {page}"
            )
        return GatedRepositoryError(
            f"{self.source} is gated: accept the licence at {page}, then run `hf auth login`"
        )


def is_hub_id(source: str) -> bool:
    """Tell whether a name has the form of a hub id, owner/name."""
    from huggingface_hub import utils
    from huggingface_hub.errors import HFValidationError

    hub: Any = utils  # its types do not export what it documents
    try:
        hub.validate_repo_id(source)
    except HFValidationError:
        return False
    return source.count("/") == 1


def _is_refusal(error: Any) -> bool:
    from huggingface_hub.errors import RepositoryNotFoundError

    status = getattr(error.response, "status_code", None)
    return isinstance(error, RepositoryNotFoundError) or status in (401, 403)


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of the tensors in a safetensors file, not their values.

    Raises:
        CheckpointError: the file is damaged or cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> CheckpointError:
    """Say that a weight file cannot be read."""
    return CheckpointError(f"{path} is damaged or cut short ({error}); download it again")
