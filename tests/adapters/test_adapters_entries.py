from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import torch

from kornia_ditf.adapters import entries
from kornia_ditf.adapters.entries import descriptor_entry, identifier, matcher_entry
from kornia_ditf.adapters.kornia import DiTFDescriptor
from kornia_ditf.adapters.kornia_matcher import DiTFMatcher
from kornia_ditf.errors import DiTFError, InvalidArgumentError, UnknownBackboneError
from kornia_ditf.registry.lookup import list_descriptors

ROOT = Path(__file__).parents[2]
GROUPS = ("kornia.dense_descriptors", "kornia.dense_matchers")


def declared(group: str) -> dict[str, str]:
    """Read what this package and the plugins beside it declare in a group."""
    found: dict[str, str] = {}
    for project in [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]:
        points = tomllib.loads(project.read_text("utf-8"))["project"]["entry-points"]
        found |= points.get(group, {})
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_every_installed_descriptor_has_an_entry_of_its_own_name(group: str) -> None:
    found = declared(group)
    assert set(list_descriptors()) <= set(found)
    kind = "matchers" if group == "kornia.dense_matchers" else "descriptors"
    assert found == {
        name: f"kornia_ditf.adapters.entries:{kind}.{identifier(name)}" for name in found
    }


def test_entries_are_found_by_their_names_as_identifiers() -> None:
    assert entries.descriptors.nano(block=1).descriptor.config.block == 1
    assert isinstance(entries.matchers.nano(block=1), DiTFMatcher)
    with pytest.raises(UnknownBackboneError, match="did you mean 'nano'"):
        entries.descriptors.nanno()
    with pytest.raises(AttributeError, match="_private"):
        _ = entries.descriptors._private


def test_an_entry_takes_options_and_gives_the_module() -> None:
    descriptor = descriptor_entry("nano")(long_side=64, block=1, treatment="raw")
    assert isinstance(descriptor, DiTFDescriptor)
    assert descriptor.descriptor.config.treatment == "raw"
    matcher = matcher_entry("nano")(long_side=64, block=1, detector="orb")
    assert isinstance(matcher, DiTFMatcher) and isinstance(matcher, torch.nn.Module)
    with pytest.raises(InvalidArgumentError, match="nano has no option 'blok'"):
        descriptor_entry("nano")(blok=1)


def test_weights_that_must_be_downloaded_are_the_usual_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DiTFError, match="dit-xl-2-256|DiT-XL-2-256"):
        descriptor_entry("dit-xl-2-256")(local_files_only=True, cache_dir=tmp_path)


HOST = """
import sys
from importlib.metadata import entry_points

heavy = ("torch", "kornia", "cv2", "diffusers", "transformers", "PIL")
loaded = {}
for group in ("kornia.dense_descriptors", "kornia.dense_matchers"):
    found = {entry.name: entry for entry in entry_points(group=group)}
    found["flux.1-dev"].load()
    loaded[group] = found["nano"].load()
assert not [name for name in heavy if name in sys.modules], "loading an entry loads a library"

import torch
image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
descriptor = loaded["kornia.dense_descriptors"](long_side=96, block=1)
matcher = loaded["kornia.dense_matchers"](long_side=96, block=1)
matches = matcher({"image0": image, "image1": image})
assert descriptor.dense(image).shape[:2] == (1, descriptor.width)
assert torch.equal(matches["keypoints0"], matches["keypoints1"])
import kornia_ditf
print(kornia_ditf.__file__, len(matches["confidence"]))
"""


@pytest.mark.slow
def test_a_host_that_knows_only_the_metadata_runs_the_installed_wheel(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = tmp_path.glob("kornia_ditf-*.whl")
    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=False)
    python = fresh / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(fresh), "platbase": str(fresh)})
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # Everything but the package itself comes from the environment that runs this test.
    Path(site, "others.pth").write_text(sysconfig.get_path("purelib"))
    script = tmp_path / "host.py"
    script.write_text(HOST)
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, script], cwd=tmp_path, env=alone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    home, count = done.stdout.split()
    assert Path(home).is_relative_to(site) and int(count) > 100
