from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import kornia_ditf as kd
from kornia_ditf.backbones.nano import NanoBackbone
from kornia_ditf.metrics.pck import PCK

DATA = Path(__file__).parents[2] / "examples" / "data"
DEBIASED = "adaln+discard > debias(0.99)"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "cache"))


def pck(treatment: str) -> float:
    plain = kd.find_protocol("plain")
    ditf = kd.create_ditf("nano", timestep=200, treatment=treatment, long_side=192)
    scores = PCK(plain.alphas, plain.base, plain.comparison)
    for pair in kd.load_dataset("folder", DATA):
        a, b = (ditf(kd.prepare_image(str(path), plain)) for path in (pair.image_a, pair.image_b))
        scores.update(kd.evaluate_pair(a, b, pair, plain).hits)
    return 100 * float(scores.compute().per_point[plain.alphas.index(0.05)])


def noisy(**options: Any) -> kd.DiTF:
    return kd.create_ditf("nano", timestep=300, treatment=DEBIASED, long_side=None, **options)


def test_debias_lifts_nano_in_noise_and_does_not_match_equal_places() -> None:
    assert pck(DEBIASED) > pck("adaln+discard") + 20
    ditf = kd.create_ditf("nano", timestep=200, treatment=DEBIASED, long_side=160)
    a, b = (ditf(DATA / f"{name}_a.jpg") for name in ("graffiti", "motorcycle"))
    # Unrelated images: whatever stays at its place would be the noise, or the position.
    points = a.centres()[:1024:7]
    found = kd.match_points(a, points, b).points_b
    still = (found - points).norm(dim=-1) < 8
    assert still.float().mean() < 0.05


def test_what_a_blank_image_shows_is_learned_once_per_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = [torch.rand(1, 3, 32, 48) for _ in range(2)] + [torch.rand(1, 3, 32, 32)]
    calls: list[int] = []
    taps = NanoBackbone.taps
    monkeypatch.setattr(NanoBackbone, "taps", lambda *a, **k: calls.append(1) or taps(*a, **k))

    def describe() -> list[torch.Tensor]:
        ditf = noisy()
        return [ditf(image).data for image in images]

    first = describe()
    assert len(calls) == 3 + 2
    again = describe()  # another object, in which nothing but the disk remembers
    assert len(calls) == 2 * 3 + 2
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


def test_a_debiased_descriptor_depends_on_its_image_alone() -> None:
    images = torch.rand(2, 3, 32, 48)
    ditf = kd.create_ditf(
        "nano", timestep=300, treatment=DEBIASED, massive_channels=None, long_side=None
    )
    together = ditf(images).data
    alone = torch.cat([ditf(image).data for image in images])
    torch.testing.assert_close(together, alone)


def test_learned_directions_are_not_kept_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KORNIA_DITF_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        kd.create_ditf("nano", timestep=300, treatment=DEBIASED, long_side=None)(
            torch.rand(1, 3, 32, 48)
        )
    assert "learned anew" in caplog.text
