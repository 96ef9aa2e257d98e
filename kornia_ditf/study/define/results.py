"""The schema of study.json, which may come from another machine or person."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from kornia_ditf.errors import DiTFError, StudyError
from kornia_ditf.protocols.protocol import Protocol
from kornia_ditf.study.define.listing import dataset_labels
from kornia_ditf.study.define.spec import Study

_MAX_PAIRS = 100_000_000


class _Lenient(BaseModel):
    # Later versions may record more.
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Hardware(_Lenient):
    """The machine that a study ran on."""

    processor: str
    cores: int | None
    memory_gb: float
    accelerators: list[str]
    threads: int


class ExperimentResult(_Lenient):
    """One configuration, evaluated on one data set by one protocol."""

    descriptor: str
    dataset: str
    protocol: Protocol
    name: str
    source: str | None
    settings: dict[str, JsonValue]
    identity: str
    channels: list[int] | None
    calibrated_on: list[str]
    width: int | None
    bytes_held: int
    device: str
    forward_shared_by: list[str]
    pairs: Annotated[int, Field(ge=1, le=_MAX_PAIRS)]
    content: list[str] = []
    license: str = ""


class FailedCell(_Lenient):
    """A cell of a table without a score."""

    descriptor: str
    dataset: str
    protocol: str
    reason: str


class StudyResult(_Lenient):
    """The content of study.json; `costs` are in that of a bundle or a merged study."""

    study: Study
    part: tuple[int, int] | None = None
    started: str
    finished: str
    versions: dict[str, str]
    hardware: Hardware
    commit: str | None
    records: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    experiments: list[ExperimentResult]
    failed: list[FailedCell] = []
    costs: dict[str, dict[str, int | float | None]] = {}


def protocol_values(protocol: Protocol) -> dict[str, Any]:
    """Return a protocol as study.json has it."""
    values = {**asdict(protocol), "compat": sorted(protocol.compat)}
    read: dict[str, Any] = json.loads(json.dumps(values))
    return read


def parse_results(text: str, name: str) -> dict[str, Any]:
    """Read and check the text of a study.json.

    Args:
        text: of the file.
        name: what an error calls it.

    Returns:
        its document.

    Raises:
        StudyError: it is not a document of a study; the message names the value.
    """
    try:
        document: dict[str, Any] = json.loads(text)
        # Names of files may hold lone surrogates, which JSON's escapes can and pydantic cannot.
        clean = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")
        found = StudyResult.model_validate_json(clean)
        # As this version writes them, so that those of other versions can be compared.
        document["study"] = found.study.model_dump(mode="json")
        for each in document["study"]["datasets"] if "bundle" in document else ():
            each |= {"root": None, "captions": None}  # nothing of this machine is read for it
        for written, each in zip(document["experiments"], found.experiments, strict=True):
            written["protocol"] = protocol_values(each.protocol)
        labels = dataset_labels(found.study)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise StudyError(f"{name} is not a study's: {where}: {first['msg']}") from error
    except (DiTFError, ValueError, RecursionError) as error:
        raise StudyError(f"{name} is not a study's ({error})") from error
    seen: set[tuple[str, str, str]] = set()
    for each in found.experiments:
        key = each.dataset, each.protocol.name, each.descriptor
        if key in seen:
            raise StudyError(f"{name} is not a study's: {key!r} is there twice")
        if each.dataset not in labels:
            raise StudyError(f"{name} is not a study's: it has no data set {each.dataset!r}")
        seen.add(key)
    for library in ("kornia-ditf", "torch"):
        if library not in found.versions:
            raise StudyError(f"{name} is not a study's: versions.{library} is missing")
    return document
