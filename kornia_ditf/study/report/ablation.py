"""The ablation of a backbone: one study with every treatment of its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kornia_ditf
from kornia_ditf.config import DiTFConfig
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.study.define.parsing import check_study
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report.analysis import analyse
from kornia_ditf.study.run.summary import read_summary
from kornia_ditf.treatments import TREATMENTS


def ablation_study(
    backbone: str,
    *,
    dataset: str | None = None,
    root: Path | None = None,
    split: str | None = None,
    protocol: str | None = None,
    limit: int | None = None,
    source: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Study:
    """Return the study of a backbone with every treatment.

    Args:
        backbone: its name.
        dataset: name of a data set; None is the pairs of photographs that come with the project.
        root: its folder.
        split: of it.
        protocol: how pairs are scored; None is `plain`.
        limit: number of pairs, drawn at random.
        source: where the weights are, if not in their own place.
        settings: of the descriptor, and of its loader.

    Raises:
        InvalidArgumentError: a data set without its folder, or a wrong value.

    Example:
        >>> study = ablation_study("nano", dataset="folder", root=Path("examples/data"))
        >>> [each.label for each in study.configurations()][:2]
        ['nano treatment raw', 'nano treatment adaln']
    """
    if dataset is None:
        dataset, root = "folder", _photographs() if root is None else root
    if root is None:
        raise InvalidArgumentError(f"name the folder of {dataset!r} with --root")
    given = dict(settings or {})
    own: Any = {
        key: [given.pop(key)] for key in list(given) if key in DiTFConfig.__dataclass_fields__
    }
    name = f"ablation-{Path(backbone).name}-{dataset}"
    descriptor = {
        "name": backbone,
        "source": source,
        "treatment": list(TREATMENTS),
        "options": given,
    }
    place = {"name": dataset, "root": str(root.absolute()), "split": split, "limit": limit}
    values = {
        "name": name,
        "descriptors": [{**descriptor, **own}],
        "datasets": [place],
        "protocols": ["plain" if protocol is None else protocol],
    }
    return check_study(values, name)


def ablation_table(out: Path) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield heading, columns and rows of each data set of a finished ablation.

    Raises:
        StudyError: the folder holds no finished study.
    """
    for section in analyse(out, read_summary(out)):
        heading = f"{section.dataset}, by {section.protocol['name']}, {section.pairs} pairs, in %"
        columns = ["treatment", *(score.name for score in section.scores)]
        rows = [
            [
                str(row.experiment["settings"]["treatment"]),
                *(f"{100 * value.value:.1f}" for value in row.values),
            ]
            for row in section.rows
        ]
        yield f"{heading}. {' '.join(section.definitions)}", columns, rows


def _photographs() -> Path:
    for place in (Path(kornia_ditf.__file__).parents[1], Path.cwd()):
        if (place / "examples/data/pairs.json").is_file():
            return place / "examples/data"
    raise InvalidArgumentError(
        "the photographs of the project's checkout are not available (examples/data): name a "
        "data set with --dataset and --root"
    )
