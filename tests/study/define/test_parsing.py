"""A study file is checked to the last key, and what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.study.define.parsing import parse_study, read_study

GOOD = """\
name: small
descriptors:
  - name: nano
    block: [3, 5]
    timestep: 0
    treatment: [raw, adaln+discard]
datasets:
  - name: folder
    root: photographs
protocols: plain
"""


def test_lists_are_swept_in_the_order_of_the_file() -> None:
    found = parse_study(GOOD).configurations()
    assert [each.label for each in found] == [
        "nano block 3 treatment raw",
        "nano block 3 treatment adaln+discard",
        "nano block 5 treatment raw",
        "nano block 5 treatment adaln+discard",
    ]
    assert found[0].settings == {"block": 3, "timestep": 0, "treatment": "raw"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "block:",
            "blok:",
            r"line 4: there is no key 'descriptors\[0\].blok'; did you mean 'block'",
        ),
        (
            "[3, 5]",
            "[3, five]",
            r"line 4: 'descriptors\[0\].block\[1\]' is 'five'; .*valid integer",
        ),
        ("timestep: 0", "timestep: noon", r"line 5: .*timestep.* is 'noon'; .*valid number"),
        ("name: small\n", "", r"line 1: 'name' is missing"),
        ("root: photographs", "limit: 0", r"line 9: 'datasets\[0\].limit' is 0; .*greater than"),
        ("protocols: plain\n", "", r"line 8: no protocol evaluates 'folder'"),
        ("    timestep: 0", "    block: 2", r"line 5: 'block' is given twice"),
        ("name: small", "name: [", r"line \d+: not valid YAML"),
        (
            "protocols: plain",
            "protocol: plain",
            r"line 10: there is no key 'protocol'; .*'protocols'",
        ),
        ("protocols: plain", "protocols: [{name: plain, override: {}}]", r"mean 'overrides'"),
        ("protocols: plain", "protocols: plain\nreport: {resample: point}", r"'pair' or 'image'"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_was_expected(
    old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(InvalidArgumentError, match=message):
        parse_study(GOOD.replace(old, new, 1), name="study.yaml")


@pytest.mark.parametrize("text", ["", "- 1", "a string", "3"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="a study is a mapping with name, descriptors"):
        parse_study(text)


def test_two_configurations_of_one_name_are_refused() -> None:
    twice = GOOD.replace("datasets:", "  - {name: nano, block: 3}\n  - {name: nano}\ndatasets:")
    with pytest.raises(InvalidArgumentError, match="two descriptors are called 'nano'"):
        parse_study(twice)


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    file = tmp_path / "study.yaml"
    file.write_text(GOOD.replace("- name: nano", "- name: nano\n    source: weights"))
    study = read_study(file)
    assert study.datasets[0].root == str(tmp_path / "photographs")
    assert study.descriptors[0].source == str(tmp_path / "weights")


def test_a_hub_id_is_no_path(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(GOOD.replace("- name: nano", "- name: nano\n    source: owner/name"))
    assert read_study(file).descriptors[0].source == "owner/name"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot read the study .*none.yaml: No such"):
        read_study(tmp_path / "none.yaml")
