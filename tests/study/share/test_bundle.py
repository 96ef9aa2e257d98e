"""A bundle has the same bytes everywhere, names no folder, and is refused where it was changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kornia_ditf.errors import DiTFError, OutputError, StudyError
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.share.bundle import bundle_study, read_bundle
from kornia_ditf.study.share.merge import merge_studies
from kornia_ditf.utils.cache import write_checked


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def bundle(studies: Any) -> Path:
    return bundle_study(studies("whole"), studies.folder / "bundles")


def test_a_bundle_has_the_same_name_and_bytes_wherever_it_is_made(
    studies: Any, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Path(shutil.copytree(studies("whole"), tmp_path / "moved", symlinks=True))
    monkeypatch.chdir(tmp_path)
    again = bundle_study(Path("moved"), Path("elsewhere"))
    assert again.name == bundle.name and contents(again) == contents(bundle)
    assert bundle_study(moved, Path("elsewhere")).resolve() == again.resolve()
    assert set(contents(again)) == {
        *("records.parquet", "records.sha256", "study.json", "study.sha256")
    }
    umask = os.umask(0)
    os.umask(umask)
    assert again.stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_bundle_tells_nothing_of_the_machines_folders(studies: Any, tmp_path: Path) -> None:
    study = studies.study(name="paths.yaml")
    model = tmp_path / "my models" / "nano"
    shutil.copytree(studies.model, model)
    chosen = {"name": str(model), "label": None, "source": None, "block": [1], "treatment": ["raw"]}
    descriptor = study.descriptors[0].model_copy(update=chosen)
    run_study(study.model_copy(update={"descriptors": [descriptor]}), tmp_path / "out")
    made = bundle_study(tmp_path / "out", tmp_path / "bundles")
    for text in contents(made).values():
        assert str(tmp_path).encode() not in text and b"my models" not in text
    found = pq.read_table(made / "records.parquet").column("descriptor").unique().to_pylist()
    assert found == ["nano"] and read_bundle(made)["experiments"][0]["descriptor"] == "nano"
    assert write_report(made)


def test_bundles_are_merged_and_reported_as_the_studies_are(
    studies: Any, bundle: Path, reported: Path, tmp_path: Path
) -> None:
    parts = [bundle_study(studies(f"part {n}", part=(n, 2)), tmp_path / "bundles") for n in (1, 2)]
    merge_studies(parts, tmp_path / "merged")
    write_report(tmp_path / "merged")
    copied = Path(shutil.copytree(bundle, tmp_path / bundle.name))
    write_report(copied)
    for folder in (tmp_path / "merged", copied):
        assert (folder / "tables.tex").read_bytes() == (reported / "tables.tex").read_bytes()
    assert "data:image/jpeg" not in (copied / "report.html").read_text("utf-8")
    assert read_bundle(copied)["costs"].keys() <= read_bundle(bundle)["costs"].keys()


def test_a_report_of_a_bundle_reads_nothing_of_this_machine(
    studies: Any, bundle: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / bundle.name))
    root = studies.study().datasets[0].root
    change(lambda document: document["study"]["datasets"][0].update(root=root))(folder)
    assert "data:image/jpeg" not in write_report(folder)[0].read_text("utf-8")


def change(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Change a bundle as someone would who also puts its checksums right."""

    def do(folder: Path) -> None:
        document = json.loads((folder / "study.json").read_text())
        edit(document)
        with write_checked(folder / "study.json") as path:
            path.write_text(json.dumps(document))

    return do


def rewrite(edit: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        with write_checked(folder / "records.parquet") as path:
            pq.write_table(edit(pq.read_table(folder / "records.parquet")), path)
        digest = (folder / "records.sha256").read_text().split()[0]
        change(lambda document: document.update(records=digest))(folder)

    return do


def replace_by_pipe(folder: Path, name: str = "records.parquet") -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


def replace_by_link(folder: Path) -> None:
    (folder / "records.parquet").unlink()
    (folder / "records.parquet").symlink_to("/etc/passwd")


def emptied(name: str) -> Callable[[pa.Table], pa.Table]:
    """Empty the lists of a column."""

    def edit(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        column = pa.array([[]] * len(table), table[name].type)
        return table.set_column(place, table.field(place), column)

    return edit


def rewrite_text(folder: Path, text: str | bytes) -> None:
    with write_checked(folder / "study.json") as path:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a changed summary": (
        lambda folder: (folder / "study.json").write_text("{}") and None,
        r"study\.json is damaged or was changed",
    ),
    "missing records": (lambda folder: (folder / "records.parquet").unlink(), "is damaged"),
    "cut records": (
        lambda folder: os.truncate(folder / "records.parquet", 100),
        "its checksum is wrong",
    ),
    "a pipe": (replace_by_pipe, "is not a file, so it is not read"),
    "a link": (replace_by_link, "is a link that leads out"),
    "a list": (
        lambda folder: rewrite_text(folder, "[]"),
        r"study\.json is not a study's: it: Input should be",
    ),
    "deep nesting": (lambda folder: rewrite_text(folder, "[" * 100_000), "is not a study's"),
    "no text": (lambda folder: rewrite_text(folder, b"\xff\xfe\x00"), "is not a study's"),
    "a wrong protocol": (
        change(lambda d: d["experiments"][0]["protocol"].update(alphas=[-1])),
        r"experiments\.0\.protocol",
    ),
    "no versions": (change(lambda d: d["versions"].clear()), "versions.kornia-ditf"),
    "a cost that is a text": (
        change(lambda d: d.update(costs={"a": {"seconds_per_image": "<b>"}})),
        r"costs\.a\.seconds_per_image",
    ),
    "another number of pairs": (
        change(lambda d: d["experiments"][0].update(pairs=2**40)),
        r"experiments\.0\.pairs",
    ),
    "a block that is no number": (
        change(lambda d: d["experiments"][0]["settings"].update(block="x")),
        "could not convert string to float",
    ),
    "twice the same": (
        change(lambda d: d["experiments"].append(d["experiments"][0])),
        "is there twice",
    ),
    "fewer rows": (rewrite(lambda table: table.slice(1)), "has 15 rows"),
    "another schema": (rewrite(lambda table: table.drop_columns("hits")), "its column hits is"),
    "points that do not fit": (rewrite(emptied("found_b")), "do not fit the protocol 'plain'"),
    "a pipe for a checksum": (
        lambda folder: replace_by_pipe(folder, "records.sha256"),
        "is not a file, so it is not read",
    ),
    "hits that do not fit": (rewrite(emptied("hits")), "hits of 'pair-0' do not fit its points"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_and_foreign_bundles_are_refused_with_the_reason(
    bundle: Path, tmp_path: Path, kind: str
) -> None:
    damage, message = DAMAGE[kind]
    folder = Path(shutil.copytree(bundle, tmp_path / bundle.name))
    damage(folder)
    with pytest.raises((StudyError, OutputError), match=message):
        write_report(folder)
    with pytest.raises(DiTFError):
        read_bundle(folder)


def test_a_bundle_under_another_contents_name_is_refused(
    studies: Any, bundle: Path, tmp_path: Path
) -> None:
    renamed = Path(shutil.copytree(bundle, tmp_path / f"small-{'0' * 16}"))
    with pytest.raises(StudyError, match="is not what its name says: its content is"):
        read_bundle(renamed)
    with pytest.raises(
        StudyError, match="is not a bundle of version 1; `kornia-ditf study bundle` makes"
    ):
        read_bundle(studies("whole"))
