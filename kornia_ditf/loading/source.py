"""What a `source` names: a local folder, a hub id, or neither, and then what to type instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kornia_ditf.errors import GatedRepositoryError, HubError
from kornia_ditf.utils.checks import nearest

_WEIGHT_SUFFIXES = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin", ".json")
_LAYOUT = "a folder in the diffusers layout (model_index.json beside transformer/ and vae/)"


def as_folder(source: str | Path) -> Path | None:
    """Return the local folder that a source names, `~` expanded; None if there is none."""
    path = _expanded(source)
    return path if str(source).strip() and _is(path, Path.is_dir) else None


def is_hub_id(source: str) -> bool:
    """Whether a name has the form of a hub id, owner/name."""
    from huggingface_hub import utils
    from huggingface_hub.errors import HFValidationError

    hub: Any = utils  # its types do not export what it documents
    try:
        hub.validate_repo_id(source)
    except HFValidationError:
        return False
    return source.count("/") == 1


def is_path(source: str) -> bool:
    """Whether a name can only be a path or a URL, and no hub id or name of a backbone."""
    return (
        source.startswith(("/", ".", "~"))
        or source.endswith(("/", *_WEIGHT_SUFFIXES))
        or source.count("/") > 1
        or "\\" in source
        or _is(_expanded(source), Path.is_file)
    )


def explain(source: str) -> str:
    """Explain what a source that is not a folder is, and what to type instead."""
    url = re.fullmatch(r"(\w+:/+|(?=huggingface\.co/))(?P<host>[^/]+)/?(?P<path>.*)", source)
    if url is not None:
        return _explain_url(source, url["host"], url["path"])
    if _is(_expanded(source), Path.is_file):
        return (
            f"{source} is a file; name {_LAYOUT} or a hub id. A single file of weights is "
            "converted by diffusers: from_single_file(...) of its pipeline, then "
            "save_pretrained(folder)"
        )
    return (
        f"there is no folder {source}{near_folder(source)}; name {_LAYOUT} or a hub id owner/name"
    )


def explain_layout(config: Mapping[str, Any]) -> str:
    """Describe a model without model_index.json by the config.json that it may have."""
    if "_class_name" in config:
        return (
            f": it is one part of a model, a {config['_class_name']}; name the folder that holds "
            "model_index.json, which is usually the one above"
        )
    if "model_type" in config:
        return f": it is a transformers model of the type {config['model_type']!r}"
    return (
        ": it is no model in the diffusers layout, which has model_index.json beside transformer/ "
        "and vae/"
    )


def near_folder(source: str) -> str:
    """Suggest the folder that a mistyped path most likely means; empty if there is none."""
    path = _expanded(source)
    try:
        siblings = [each.name for each in path.parent.iterdir() if each.is_dir()]
    except OSError:
        missing = next(
            (each for each in reversed(path.parents) if not _is(each, Path.exists)), None
        )
        return f" ({missing} does not exist)" if missing is not None and is_path(source) else ""
    near = nearest(path.name, siblings)
    return "" if near is None else f"; did you mean {str(path.parent / near)!r}?"


def _explain_url(source: str, host: str, path: str) -> str:
    source = re.sub(r":/+", "://", source, count=1)  # a pathlib.Path has lost a slash
    parts = path.strip("/").split("/")
    if not host.endswith(("huggingface.co", "hf.co")) or not is_hub_id("/".join(parts[:2])):
        return f"{source} is a URL; download the model and name its folder, or name its hub id"
    revision = f" with revision={parts[3]!r}" if parts[2:3] == ["tree"] and parts[3:] else ""
    return f"{source} is a URL; name the model by its hub id, {'/'.join(parts[:2])!r}{revision}"


def _expanded(source: str | Path) -> Path:
    with suppress(RuntimeError):  # the home of an unknown user
        return Path(source).expanduser()
    return Path(source)


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    with suppress(OSError):  # a name that is too long, or a parent that may not be read
        return kind(path)
    return False


def no_folder(source: str) -> str:
    """Return a remark that no such folder exists, where the name may have meant one."""
    if as_folder(Path(source).parent) is None:
        return ""
    return f"there is no folder {source}{near_folder(source)}; on the hub, "


def refusal(source: str, error: Any) -> HubError | None:
    """Return the error for a repository that the hub refuses to show; None for other answers."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    missing = isinstance(error, RepositoryNotFoundError)
    if not missing and getattr(error.response, "status_code", None) not in (401, 403):
        return None
    page = f"https://huggingface.co/{source}"
    if missing and not isinstance(error, GatedRepoError):  # which counts as not found, too
        return HubError(
            f"{no_folder(source)}the hub shows no {source}: check the name; "
            f"if it is private, run `hf auth login` with an account that sees {page}"
        )
    return GatedRepositoryError(
        f"{source} is gated: accept the licence at {page}, then run `hf auth login`"
    )
