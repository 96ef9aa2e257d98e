"""A study runs whatever happens to it, and does nothing twice."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import ImageError, OutputError, StudyError
from kornia_ditf.study.define import listing
from kornia_ditf.study.define.parsing import read_study
from kornia_ditf.study.define.spec import Study
from kornia_ditf.study.report.page import write_report
from kornia_ditf.study.run import scoring, worker
from kornia_ditf.study.run.runner import run_study
from kornia_ditf.study.store import cache, records

DESCRIBED, SCORED = "describing images", "scoring pairs"


def values(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def test_every_pair_has_one_record_for_every_configuration(
    small_study: Study, tmp_path: Path
) -> None:
    rows = values(run_study(small_study, tmp_path / "out"))
    labels = [each.label for each in small_study.configurations()]
    assert [(row["descriptor"], row["index"]) for row in rows] == [
        (label, index) for label in labels for index in range(4)
    ]
    assert all(len(row["distances"]) == 5 == len(row["hits"][0]) for row in rows)


def test_an_image_is_described_once_for_all_that_a_forward_serves(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[int]] = []
    whole = DiTF.prepared_taps

    def counted(self: DiTF, images: Any, blocks: Any, prompts: Any = None) -> Any:
        calls.extend([list(blocks)] * len(images))
        return whole(self, images, blocks, prompts)

    monkeypatch.setattr(DiTF, "prepared_taps", counted)
    run_study(small_study, tmp_path / "out")
    # Four images to find massive channels in, and four to describe; always both blocks at once.
    assert calls == [[1, 2]] * 8


def test_a_finished_study_does_nothing_when_it_is_run_again(
    small_study: Study, tmp_path: Path, heard: Any
) -> None:
    path = run_study(small_study, tmp_path / "out")
    first = path.read_bytes()
    run_study(small_study, tmp_path / "out", watcher=heard)
    assert heard.total(DESCRIBED) == heard.total(SCORED) == 0
    assert path.read_bytes() == first


def test_changing_one_descriptor_recomputes_only_its_part(
    make_study: Any, tmp_path: Path, heard: Any
) -> None:
    file = make_study()
    run_study(read_study(file), tmp_path / "out")
    document = yaml.safe_load(file.read_text())
    first = document["descriptors"][0]
    document["descriptors"] = [first, {**first, "label": "noisy", "timestep": 300, "block": 1}]
    file.write_text(yaml.safe_dump(document))
    rows = values(run_study(read_study(file), tmp_path / "out", watcher=heard))
    assert heard.total(DESCRIBED) == 4
    assert heard.total(SCORED) == 2 * 4
    assert len(rows) == (4 + 2) * 4


def test_a_larger_limit_scores_only_the_new_pairs(
    make_study: Any, tmp_path: Path, heard: Any
) -> None:
    def limited(limit: int) -> Study:
        study = read_study(make_study(pairs=8))
        choice = study.datasets[0].model_copy(update={"limit": limit})
        return study.model_copy(update={"datasets": [choice]})

    before = values(run_study(limited(3), tmp_path / "out"))
    after = values(run_study(limited(5), tmp_path / "out", watcher=heard))
    assert heard.total(SCORED) == 4 * 2
    assert [row for row in after if row["index"] in {r["index"] for r in before}] == before


def test_a_changed_image_is_described_and_its_pairs_are_scored_again(
    small_study: Study, tmp_path: Path, heard: Any
) -> None:
    run_study(small_study, tmp_path / "out")
    root = Path(str(small_study.datasets[0].root))
    (root / "3.png").write_bytes((root / "1.png").read_bytes())
    # Massive channels are sought in the first images: they are sought again, and found the same.
    run_study(small_study, tmp_path / "out", watcher=heard)
    assert heard.total(DESCRIBED) == 0  # those bytes are known, under another name
    assert heard.total(SCORED) == 2 * 4


def test_damaged_maps_are_named_and_made_again(make_study: Any, tmp_path: Path, heard: Any) -> None:
    study = read_study(make_study())
    before = values(run_study(study, tmp_path / "out"))
    maps = sorted((tmp_path / "out/cache").rglob("*.safetensors"))
    content = bytearray(maps[0].read_bytes())
    content[-7] ^= 1
    maps[0].write_bytes(content)
    maps[1].write_bytes(maps[1].read_bytes()[:100])
    maps[2].write_bytes(b"")
    for part in (tmp_path / "out/records").rglob("*.parquet"):
        part.unlink()
    assert values(run_study(study, tmp_path / "out", watcher=heard)) == before
    assert {str(path) for path in maps[:3]} == {
        warning.split(" is damaged")[0] for warning in heard.warnings
    }
    assert 1 <= heard.total(DESCRIBED) <= 3


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_damaged_records_are_named_and_made_again(
    small_study: Study, tmp_path: Path, heard: Any, damage: str
) -> None:
    path = run_study(small_study, tmp_path / "out")
    before = path.read_bytes()
    part = min((tmp_path / "out/records").rglob("*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        part.unlink()
    else:
        part.write_bytes({"flip": content, "cut": content[:-9], "empty": b""}[damage])
    assert run_study(small_study, tmp_path / "out", watcher=heard).read_bytes() == before
    assert heard.total(SCORED) == 4 and heard.total(DESCRIBED) == 0
    assert damage == "gone" or str(part) in heard.warnings[0]


def test_a_damaged_final_file_is_named_and_put_together_again(
    small_study: Study, tmp_path: Path, heard: Any
) -> None:
    path = run_study(small_study, tmp_path / "out")
    before = path.read_bytes()
    path.write_bytes(before[:200] + b"!" + before[201:])
    run_study(small_study, tmp_path / "out", watcher=heard)
    assert path.read_bytes() == before
    assert "records.parquet is damaged" in heard.warnings[0]
    assert heard.total(SCORED) == 0


def test_an_image_that_cannot_be_described_fails_alone(
    small_study: Study, tmp_path: Path, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = worker.prepare_image

    def fails(path: str, fit: Any) -> Any:
        if path.endswith("3.png"):
            raise ImageError("too thin")
        return whole(path, fit)

    first = small_study.descriptors[0].model_copy(update={"treatment": ["raw"]})
    study = small_study.model_copy(update={"descriptors": [first]})
    with monkeypatch.context() as patch:
        patch.setattr(worker, "prepare_image", fails)
        with pytest.raises(StudyError, match=r"4 records are missing: .*3\.png: too thin.* kept"):
            run_study(study, tmp_path / "out")
    rows = values(run_study(study, tmp_path / "out", watcher=heard))
    assert len(rows) == 2 * 4
    assert heard.total(DESCRIBED) == 1 and heard.total(SCORED) == 4


def test_what_a_killed_run_left_half_written_is_swept_away(
    small_study: Study, tmp_path: Path
) -> None:
    torn = tmp_path / "out/cache/ab/.0123456789abcdef.safetensors"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half")
    run_study(small_study, tmp_path / "out")
    assert not torn.exists()


def test_temporary_files_in_a_cache_elsewhere_are_swept_as_well(
    small_study: Study, tmp_path: Path
) -> None:
    torn = tmp_path / "maps/ab/.0123456789abcdef.safetensors"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"half")
    run_study(small_study, tmp_path / "out", cache=tmp_path / "maps")
    assert not torn.exists()


@pytest.mark.parametrize("text", ["5", "{}", None])
def test_prepared_files_that_were_changed_are_made_again(
    small_study: Study, tmp_path: Path, text: str | None
) -> None:
    out = tmp_path / "out"
    whole = run_study(small_study, out).read_bytes()
    (kept,) = (out / "prepared").glob("*.json")
    before = json.loads(kept.read_text())
    changed = json.loads(kept.read_text())
    for member in changed["members"].values():
        member["channels"] = [7]
    kept.write_text(json.dumps(changed) if text is None else text)
    for folder in ("cache", "records"):
        shutil.rmtree(out / folder)
    assert run_study(small_study, out).read_bytes() == whole
    assert json.loads(kept.read_text()) == before


def test_records_name_images_by_their_path_in_the_data_set(make_study: Any, tmp_path: Path) -> None:
    study = read_study(make_study())
    records = run_study(study, tmp_path / "out")
    rows = values(records)
    assert {row["image_a"] for row in rows} == {f"{place}.png" for place in range(4)}
    assert str(tmp_path).encode() not in records.read_bytes()
    moved = tmp_path / "moved"
    shutil.copytree(study.datasets[0].root or "", moved)
    elsewhere = study.datasets[0].model_copy(update={"root": str(moved)})
    study = study.model_copy(update={"datasets": [elsewhere]})
    assert run_study(study, tmp_path / "out-2").read_bytes() == records.read_bytes()


@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_the_umask_decides_who_may_read_a_study(
    small_study: Study, tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        run_study(small_study, tmp_path / "out")
        write_report(tmp_path / "out")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    assert set(modes.values()) == {0o666 & ~umask}, modes


def test_a_full_disk_ends_the_run_with_an_output_error(
    small_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "save_sealed", full)
    with pytest.raises(OutputError, match="No space left"):
        run_study(small_study, tmp_path / "out")
    assert not list((tmp_path / "out/cache").rglob("*.safetensors"))


def test_ten_times_the_pairs_are_ten_times_the_work(
    make_study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(pairs: int) -> dict[str, int]:
        counts: dict[str, int] = {}

        def count(module: Any, name: str) -> None:
            whole = getattr(module, name)

            def counted(*given: Any, **named: Any) -> Any:
                counts[name] = counts.get(name, 0) + 1
                return whole(*given, **named)

            monkeypatch.setattr(module, name, counted)

        with monkeypatch.context():
            for module, name in (
                (listing, "file_digest"),
                (listing, "_pair_key"),
                (scoring, "score_points"),
                (records, "read_part"),
                (cache.MapCache, "write"),
                (cache.MapCache, "read"),
                (DiTF, "taps"),
            ):
                count(module, name)
            run_study(read_study(make_study(pairs=pairs)), tmp_path / f"out-{pairs}")
            monkeypatch.undo()
        return counts

    few, many = work(4), work(40)
    assert few.keys() == many.keys()
    assert {name for name in few if many[name] > 10 * few[name]} == set()
