"""Bundles: a study's results in two files, named by their content, to be given to others."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from ntpath import basename
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any

from kornia_ditf.errors import OutputError, StudyError
from kornia_ditf.study.run.costs import cost_key, known_costs, scoring_identity
from kornia_ditf.study.run.summary import SUMMARY, read_finished
from kornia_ditf.study.store.records import RECORDS, copy_records
from kornia_ditf.utils.cache import sha256, write_checked
from kornia_ditf.utils.files import os_errors_as

FORMAT = 1

_DIGITS = 16
_LABELS = ("descriptor", "dataset")
_NAMES_OF_PATHS = ("root", "source", "projection", "captions", "name", "label", *_LABELS)
# In a text, a path follows a space, a quotation mark or a bracket; that of an URL does not.
_IN_TEXT = re.compile(
    r"(?<![^\s'\"=(,\[{:])(?:~[\w.-]*|[A-Za-z]:)?[\\/](?![\\/])[^\s'\",)\]}\\/]+[\\/][^\s'\",)\]}]*"
)


def bundle_study(folder: Path, out: Path) -> Path:
    """Write a bundle of a finished study.

    It holds records.parquet and study.json with their checksums: records, settings, versions,
    hardware and costs, and no path of this machine. The same study gives the same bytes.

    Args:
        folder: of the study.
        out: folder of bundles; made where it is missing.

    Returns:
        the bundle's folder in `out`, named by the study and a digest of its content.

    Raises:
        StudyError: the study is not finished or is damaged, or two labels differ in the folders of
            paths alone.
        OutputError: the bundle cannot be written.
    """
    summary = read_finished(folder)
    document = without_paths(summary)
    labels = {key: {a[key]: b[key] for a, b in _experiments(summary, document)} for key in _LABELS}
    for key, renamed in labels.items():
        if len(set(renamed.values())) < len(renamed):
            raise StudyError(
                f"{', '.join(map(repr, renamed))} differ only in their folders, which a bundle "
                f"leaves out: give each {key} a `label` in the study, and run it again"
            )
    costs = known_costs(folder, summary)
    document["costs"] = {
        cost_key(scoring_identity(b["identity"], pca)): asdict(costs[key])
        for a, b in _experiments(summary, document)
        for pca in (None, a["settings"].get("pca"))
        if (key := cost_key(scoring_identity(a["identity"], pca))) in costs
    }
    with os_errors_as(
        OutputError, f"cannot write a bundle to {out}", "name another folder with --out"
    ):
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out, prefix=".bundle-") as temporary:
            made = Path(temporary) / "bundle"  # with the mode that the umask gives
            with write_checked(made / RECORDS) as records:
                copy_records(folder / RECORDS, records, labels)
            document |= {"bundle": FORMAT, "records": sha256(made / RECORDS)}
            with write_checked(made / SUMMARY) as path:
                path.write_text(json.dumps(document, indent=1), "utf-8")
            target = out / f"{_slug(document['study']['name'])}-{sha256(made / SUMMARY)[:_DIGITS]}"
            if target.is_dir():
                shutil.rmtree(target)  # it should be equal, and may be damaged
            return made.rename(target)


def read_bundle(folder: Path) -> dict[str, Any]:
    """Read and check the summary of a bundle, from wherever it is.

    Raises:
        StudyError: it is not a bundle, or damaged, or was renamed to another content's name.
        OutputError: a link in it leads out of it.
    """
    summary = read_finished(folder)
    if summary.get("bundle") != FORMAT:
        raise StudyError(
            f"{folder} is not a bundle of version {FORMAT}; `kornia-ditf study bundle` makes one"
        )
    named = re.fullmatch(rf".*-([0-9a-f]{{{_DIGITS}}})", folder.resolve().name, re.DOTALL)
    content = sha256(folder / SUMMARY)[:_DIGITS]
    if named is None or named[1] != content:
        raise StudyError(f"{folder} is not what its name says: its content is {content}")
    return summary


def without_paths(value: Any) -> Any:
    """Return a JSON value with the last part of every absolute path in place of the path.

    Example:
        >>> without_paths({"root": "/home/me/my data", "note": "of '/home/me/my data' at https://a/b"})
        {'root': 'my data', 'note': "of 'my data' at https://a/b"}
    """
    paths = sorted(set(_paths(value)), key=lambda path: (-len(path), path))
    return _replaced(value, paths)


def _replaced(value: Any, paths: list[str]) -> Any:
    if isinstance(value, str):
        for path in paths:
            value = value.replace(path, basename(path.rstrip("\\/")))
        return _IN_TEXT.sub(lambda found: basename(found[0].rstrip("\\/")), value)
    if isinstance(value, Mapping):
        return {key: _replaced(each, paths) for key, each in value.items()}
    return [_replaced(each, paths) for each in value] if isinstance(value, list) else value


def _paths(value: Any, key: str = "") -> Iterator[str]:
    """Iterate over the texts that are absolute paths."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _paths(each, name)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _paths(each, key)
    elif isinstance(value, str):
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            least = 2 if key in _NAMES_OF_PATHS else 3  # a prompt may begin with a slash
            if (path.is_absolute() or value[:1] == "~") and len(path.parts) >= least:
                yield value
                return


def _experiments(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    return zip(a["experiments"], b["experiments"], strict=True)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "study"
