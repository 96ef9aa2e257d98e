"""Access to the files of a model, in a local folder or on the hub, one by one as needed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from kornia_ditf.errors import (
    CheckpointError,
    HubError,
    HubUnreachableError,
    InvalidArgumentError,
)
from kornia_ditf.loading import source as sources
from kornia_ditf.loading.header import read_header
from kornia_ditf.utils.files import os_errors_as

WEIGHTS = "diffusion_pytorch_model"
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "variant")
"""Options of every loader that say which of a model's files are meant; see `Checkpoint`."""
_INDICES = ("model_index.json", "modular_model_index.json")
_TEXT_PARTS = ("text_encoder", "tokenizer")
_TIMEOUT_SECONDS = 10.0
# model.fp16.safetensors, model.fp16-00001-of-00002.safetensors, model.safetensors.index.fp16.json
_VARIANT = re.compile(r"\.(?!safetensors)(\w+)(-\d+-of-\d+)?\.(safetensors|json)$")

_SHARD = re.compile(r"-\d+-of-\d+\.")
_INCOMPLETE = ": it is incomplete; download it again"


class Checkpoint:
    """A model's files, in a local folder or on the hub; each is downloaded when it is first read.

    Args:
        source: a hub id such as `black-forest-labs/FLUX.1-dev`, or a folder.
        revision: branch, tag or commit on the hub; None is its main branch.
        token: hub token; None takes the one that `hf auth login` stored.
        cache_dir: the hub's download cache; None is its default.
        local_files_only: use cached files only, without asking the hub.
        variant: of the weights, such as `fp16`, where their files have one in their names.

    Raises:
        CheckpointError: neither a folder nor a hub id.
        InvalidArgumentError: the source is empty, or the revision or variant is not a string.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        variant: str | None = None,
    ) -> None:
        if not str(source).strip():
            raise InvalidArgumentError("source must name a folder or a hub id, got an empty string")
        for name, value in (("revision", revision), ("variant", variant)):
            if value is not None and (not isinstance(value, str) or not value):
                raise InvalidArgumentError(f"{name} must be a string such as 'main', got {value!r}")
        self.source, self.revision, self.token = str(source), revision, token
        self.cache_dir = None if cache_dir is None else str(Path(cache_dir).expanduser())
        self.local_files_only, self.variant = local_files_only, variant
        self.folder = sources.as_folder(source)
        if self.folder is None and (
            sources.is_path(self.source) or not sources.is_hub_id(self.source)
        ):
            raise CheckpointError(sources.explain(self.source))

    @cached_property
    def identity(self) -> str:
        """Which weights these are: the hub's commit, or a digest of a folder's files.

        A folder's weights are told apart by name, size and time of change, not read. Its text
        encoders do not count: they may go once their prompts are cached (`text_identity`).
        """
        variant = "" if self.variant is None else f" {self.variant}"
        if self.folder is None:
            if self._remote is not None:
                return f"{self.source}@{self._remote.sha}{variant}"
            # A pipeline has one of the first, a single model of transformers the last alone.
            index = next((name for name in _INDICES if self.exists(name)), "config.json")
            return f"{self.source}@{self.file(index).parent.name}{variant}"
        files = [name for name in self.files() if not name.startswith(_TEXT_PARTS)]
        return f"{self.folder.name}@{self._digest(self.folder, files)}{variant}"

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
            with os_errors_as(CheckpointError, f"cannot read {path}"):
                if path.suffix == ".json":
                    digest.update(path.read_bytes())
                elif path.suffix == ".safetensors":
                    stat = path.stat()
                    digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}".encode())
        return digest.hexdigest()[:40]

    def exists(self, name: str) -> bool:
        """Whether the model has a file, by its path inside the repository."""
        if self.folder is not None:
            return (self.folder / name).is_file()
        if self._remote is not None:
            return name in self._remote_sizes
        try:
            return self.file(name).is_file()
        except (CheckpointError, HubUnreachableError):
            return False

    def file(self, name: str) -> Path:
        """Return the local path of a file, downloading it if it is not cached.

        Raises:
            CheckpointError: the model has no such file.
            GatedRepositoryError: the repository wants its licence accepted first.
            HubError: the hub does not give it.
        """
        if self.folder is None and (self._remote is None or name in self._remote_sizes):
            return self._download(name)
        if self.folder is None or not (self.folder / name).is_file():
            raise self._missing(name)
        return self.folder / name

    def size(self, name: str) -> int:
        """Return a file's size in bytes, without downloading it.

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
        except (ValueError, OSError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged ({error}); download it again") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path} must hold a JSON object, got a {type(content).__name__}")
        return content

    @cached_property
    def index(self) -> dict[str, Any]:
        """The model's pipeline, and the library and class of each of its parts.

        Raises:
            CheckpointError: it has no index, or a damaged one.
        """
        if self.exists(_INDICES[0]) or not self.exists(_INDICES[1]):
            return self.json(_INDICES[0])
        values = self.json(_INDICES[1])  # which also says where each part comes from
        return {name: v[:2] if isinstance(v, list) else v for name, v in values.items()}

    def has_part(self, name: str) -> bool:
        """Whether the model's index names a class for a part, such as `vae`."""
        named = self.index.get(name)
        return isinstance(named, list) and bool(named) and named[0] is not None

    def weight_file(self, subfolder: str, stem: str = WEIGHTS) -> str:
        """Find the file that holds a part's weights, or the index of its shards.

        Files of the variant come first; only the `transformer` and the `unet` must have it.

        Args:
            subfolder: of the part; empty for the repository itself.
            stem: what the file's name begins with.
        """
        names = [f"{stem}.safetensors.index.json", f"{stem}.safetensors"]
        if self.variant is not None:
            variants = [f"{stem}.safetensors.index.{self.variant}.json"]
            variants.append(f"{stem}.{self.variant}.safetensors")
            names = variants + ([] if subfolder in ("", "transformer", "unet") else names)
        paths = [(PurePosixPath(subfolder) / name).as_posix() for name in names]
        return next((path for path in paths[:-1] if self.exists(path)), paths[-1])

    def weight_map(self, subfolder: str, stem: str = WEIGHTS) -> dict[str, str] | None:
        """Read which shard holds each tensor: tensor name to file; None where there is one file.

        Raises:
            CheckpointError: the index is damaged, or names a file outside of its folder.
        """
        index = self.weight_file(subfolder, stem)
        if not index.endswith(".json"):
            return None
        names = self.json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
            raise CheckpointError(
                f"{self.source}/{index} has no valid weight_map; download it again"
            )
        for file in set(names.values()):
            if not file.strip() or ".." in re.split(r"[/\\]", file) or Path(file).is_absolute():
                raise CheckpointError(
                    f"{self.source}/{index} names {file!r}, which is not a file in its own folder"
                )
        folder = PurePosixPath(subfolder)
        return {tensor: (folder / file).as_posix() for tensor, file in names.items()}

    def weight_files(self, subfolder: str) -> set[str]:
        """List the files that hold a part's weights; errors as in `weight_map`."""
        stored = self.weight_map(subfolder)
        return {self.weight_file(subfolder)} if stored is None else {*stored.values()}

    def shards(self, subfolder: str, stem: str = WEIGHTS) -> dict[str, str]:
        """Read which file of a model's part holds each tensor: tensor name to file.

        Raises:
            CheckpointError: there are no safetensors weights, or they are damaged.
        """
        stored = self.weight_map(subfolder, stem)
        if stored is None:
            single = self.weight_file(subfolder, stem)
            return dict.fromkeys(read_header(self.file(single)).dtypes, single)
        return stored

    def files(self) -> list[str]:
        """List the model's files.

        Raises:
            HubUnreachableError: the hub cannot be asked.
        """
        if self.folder is not None:
            with os_errors_as(CheckpointError, f"cannot read {self.folder}"):
                paths = [path for path in self.folder.rglob("*") if path.is_file()]
            return sorted(path.relative_to(self.folder).as_posix() for path in paths)
        if self._remote is None:
            raise HubUnreachableError(f"the hub cannot list the files of {self.source}")
        return sorted(self._remote_sizes)

    def has(self, name: str) -> bool:
        """Whether a file is on this machine already."""
        if self.folder is not None:
            return (self.folder / name).is_file()
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(
            self.source, name, cache_dir=self.cache_dir, revision=self._revision
        )
        return isinstance(cached, str)

    def pretrained_options(self) -> dict[str, Any]:
        """Return what diffusers' own `from_pretrained` needs to load these very files.

        The commit is pinned, so that what it loads cannot differ from what was read before, and
        where the hub cannot be asked it is not asked again.
        """
        local = self.folder is not None
        return {
            "pretrained_model_name_or_path": str(self.folder) if local else self.source,
            "revision": None if local else self._revision,
            "local_files_only": local or self._remote is None,
            "token": self.token,
            "cache_dir": self.cache_dir,
            "use_safetensors": True,
            "variant": self.variant,
        }

    def _missing(self, name: str) -> CheckpointError:
        return CheckpointError(f"{self.source} has no {name}{self._advice(name)}")

    def _advice(self, name: str) -> str:
        if name == "model_index.json":
            config = self.json("config.json") if self.exists("config.json") else {}
            return sources.explain_layout(config)
        stem, dot, _ = name.partition(".safetensors" if self.variant is None else ".")
        if not dot:
            return _INCOMPLETE
        try:
            beside = [file for file in self.files() if file.startswith(stem)]
        except HubUnreachableError:
            beside = []
        matches = (_VARIANT.search(file.removeprefix(stem)) for file in beside)
        variants = sorted({match[1] for match in matches if match} - {"index"})
        plain = any(file.removeprefix(stem).startswith(".safetensors") for file in beside)
        if _SHARD.search(name):
            return ": one of its shards is missing; download it again"
        if self.variant is not None and (plain or variants):
            ways = ["leave variant out"] if plain else []
            ways += [f"give variant={found!r}" for found in variants]
            return f": it has no variant {self.variant!r}; {', or '.join(ways)}"
        if variants:
            return f", only the variant {' or '.join(variants)}: give variant={variants[0]!r}"
        if any(file.removeprefix(stem).startswith(".bin") for file in beside):
            return (
                ", only a pickled .bin, which is not read because it can run code; "
                "name a revision or a repository that has safetensors"
            )
        return _INCOMPLETE

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
            if (refusal := sources.refusal(self.source, error)) is not None:
                raise refusal from error
            return None
        except (errors.OfflineModeIsEnabled, connection_errors, OSError):
            return None

    @property
    def _revision(self) -> str | None:
        """The commit, or the revision that was asked for where the hub cannot be asked."""
        return self.revision if self._remote is None else str(self._remote.sha)

    @cached_property
    def _remote_sizes(self) -> dict[str, int]:
        return {file.rfilename: file.size or 0 for file in self._remote.siblings or ()}

    def _download(self, name: str) -> Path:
        from huggingface_hub import errors, hf_hub_download

        try:
            path = hf_hub_download(
                self.source,
                name,
                revision=self._revision,
                token=self.token,
                cache_dir=self.cache_dir,
                local_files_only=self._remote is None,
                etag_timeout=_TIMEOUT_SECONDS,
            )
        except errors.LocalEntryNotFoundError as error:
            remark = sources.no_folder(self.source)
            raise HubUnreachableError(
                f"{remark}{name} of {self.source} is not cached and the hub cannot be "
                "reached; connect, or give a local folder with source=..."
            ) from error
        except errors.EntryNotFoundError as error:
            raise self._missing(name) from error
        except errors.HfHubHTTPError as error:
            message = f"the hub does not give {name} of {self.source}: {error}"
            raise sources.refusal(self.source, error) or HubError(message) from error
        except OSError as error:
            raise HubError(f"cannot download {name} of {self.source}: {error}") from error
        return Path(path)


def hub_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options that say which of a model's files are meant."""
    return {name: options[name] for name in (*HUB_OPTIONS, "config") if name in options}


def take_hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Remove those options that a `Checkpoint` takes, and return them."""
    return {name: options.pop(name) for name in HUB_OPTIONS if name in options}
