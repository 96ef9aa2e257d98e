"""A study file is checked to the last key, and what is wrong is named with its line."""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path
from random import Random

import pytest
import yaml

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.study.define.parsing import parse_study, read_study
from kornia_ditf.study.define.spec import Study

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
        ("root: photographs", "root: ''", r"line 9: 'datasets\[0\].root' is ''"),
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
    with pytest.raises(InvalidArgumentError, match="two descriptors or matchers are called 'nano'"):
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


def _aliases(depth: int) -> str:
    names = "abcdefghijklmnop"[:depth]
    lines = ["a: &a [x, x]"]
    lines += [f"{b}: &{b} [*{a}, *{a}]" for a, b in itertools.pairwise(names)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_aliases(16), "more than 50,000 values"),
        ("name: &a [*a]", "nested deeper than 20"),
        ("a: &a\n  <<: *a", "a key must be text"),
        ("name: " + "[" * 90_000, r"line 1: not valid YAML \(nested deeper than 20"),
        ("{a: " * 3000 + "1" + "}" * 3000, "nested deeper"),
        ("? [a, b]\n: c", "line 1: a key must be text"),
        ("? {a: b}\n: c", "a key must be text"),
        ("1: c", "a key must be text"),
        ("name: !!int abc", "not valid YAML"),
        ("name: !!float ''", "not valid YAML"),
        ("name: 0b_", "not valid YAML"),
        ("name: " + "9" * 5000, "not valid YAML"),
        ('name: "\\U7fffffff"', "not valid YAML"),
        ("name: !!python/object:os.system x", "not valid YAML"),
        ("x" * 100_001, "at most 100,000 characters"),
    ],
)
def test_yaml_that_could_mislead_or_hang_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        parse_study(text)
    assert len(str(caught.value)) < 400


def test_an_alias_stands_for_its_value() -> None:
    text = GOOD.replace("[3, 5]", "&blocks [3, 5]").replace("timestep: 0", "timestep: *blocks")
    assert len(parse_study(text).configurations()) == 8


def test_a_date_is_text() -> None:
    assert parse_study(GOOD.replace("name: small", "name: 2001-99-99")).name == "2001-99-99"


@pytest.mark.parametrize("value", ["a\0b", "~nobody-of-that-name/x"])
@pytest.mark.parametrize("key", ["root", "source"])
def test_what_cannot_be_a_path_is_named(tmp_path: Path, key: str, value: str) -> None:
    document = yaml.safe_load(GOOD)
    document["datasets" if key == "root" else "descriptors"][0][key] = value
    with pytest.raises(InvalidArgumentError, match=rf"line \d+: .*\.{key}' is .*cannot be a path"):
        parse_study(yaml.safe_dump(document), folder=tmp_path)


def test_a_sweep_of_a_thousand_million_is_refused_before_it_is_laid_out() -> None:
    document = yaml.safe_load(GOOD)
    thousand = list(range(1000))
    document["descriptors"][0] |= {"block": thousand, "timestep": thousand, "seed": thousand}
    study = Study.model_validate(document)
    with pytest.raises(
        InvalidArgumentError, match=r"multiply to \d,000,\d{3},\d{3} .*at most 10,000"
    ):
        study.configurations()


def test_a_reference_that_is_no_label_is_told_with_the_nearest() -> None:
    label = parse_study(GOOD).configurations()[0].label
    text = f"{GOOD}\nreport: {{reference: '{label}x'}}"
    with pytest.raises(InvalidArgumentError, match=re.escape(f"did you mean {label!r}")):
        parse_study(text)


TOKENS = [
    *("[", "]", "{", "}", ":", "-", "?", "&a ", "*a", "<<", "~", "|", ">", "%", "@", "'", '"'),
    *("!!int ", "!!binary ", "!!set ", "!!timestamp ", "!!float ", "!!omap ", "!x "),
    *(".nan", ".inf", "-1", "1e308", "9" * 30, "9" * 5000, "0x", "0b_", "1:2:3", "2001-99-99"),
    *('"\\ud800"', '"\\U7fffffff"', "\0", "\x1b", "\u202e", "\ufeff", "\n", "\t", "---", "..."),
    *("null", "true", "[]", "{}", "''", "[[[]]]", "{a: {b: c}}", "# x"),
]


def test_files_that_were_changed_at_random_raise_nothing_but_our_own_error(tmp_path: Path) -> None:
    for seed in range(700):
        random = Random(seed)
        text = GOOD
        for _ in range(random.randint(1, 4)):
            place = random.randrange(len(text) + 1)
            end = place + random.choice([0, 0, random.randint(1, 12)])
            text = text[:place] + random.choice(TOKENS) + text[end:]
        with contextlib.suppress(InvalidArgumentError):
            parse_study(text, folder=tmp_path)
