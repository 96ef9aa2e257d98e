from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.treatments import (
    TREATMENTS,
    Treatment,
    TreatmentSpec,
    apply_treatment,
    learn_from_blank,
    parse_treatment,
)
from kornia_ditf.types import Tap


def random_tap(seed: int = 0, tokens: int = 60, width: int = 16) -> Tap:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, tokens, width, generator=generator)
    shift, scale = torch.randn(2, 2, width, generator=generator)
    return Tap(x, shift, scale, (6, tokens // 6))


def test_a_line_is_its_steps_one_after_another() -> None:
    tap = random_tap()
    smoothed = tap.x / tap.x.abs().amax(1, keepdim=True).sqrt()
    expected = apply_treatment(replace(tap, x=smoothed), "adaln+discard", [3])
    found = apply_treatment(tap, "smooth(0.5) > discard > adaln", [3])
    torch.testing.assert_close(found, expected)


def test_the_text_of_a_treatment_is_normal_and_complete() -> None:
    treatment = parse_treatment("adaln+discard>debias ")
    assert treatment == "adaln+discard > debias(0.99)"
    assert parse_treatment("smooth( .50 )>adaln") == "smooth(0.5) > adaln"
    assert parse_treatment(treatment) is treatment
    copied = deepcopy(treatment)
    assert isinstance(copied, Treatment) and copied.steps == treatment.steps
    assert all(parse_treatment(name) == name for name in TREATMENTS)


def test_a_treatment_says_what_it_needs_and_costs() -> None:
    raw, method = parse_treatment("raw"), parse_treatment("adaln+discard")
    debiased = parse_treatment("adaln > debias(10)")
    assert (raw.discards, method.discards, debiased.discards) == (False, True, False)
    assert (raw.learns, method.learns, debiased.learns) == (False, False, True)
    assert (raw.modulates, method.modulates, debiased.modulates) == (False, True, True)
    assert (raw.cost(16), method.cost(16), debiased.cost(16)) == (0, 10, 49)
    assert parse_treatment("whiten").cost(16) == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adain", r"treatment must be one of raw.*, got 'adain'; did you mean 'adaln'"),
        ("adaln > debis(3)", r"got 'debis' in 'adaln > debis\(3\)'; did you mean 'debias'"),
        ("", "got ''"),
        ("raw >", "got '' in 'raw >'"),
        ("smooth", r"smooth takes 1 numbers, smooth\(strength\), got 'smooth'"),
        ("adaln(2)", r"adaln takes no numbers"),
        ("debias(1, 2)", r"debias takes 1 numbers"),
        ("smooth(2)", r"smooth takes a number in \[0, 1\]"),
        ("debias(1.5)", "number of debias, where not between 0 and 1, must be an integer"),
        ("debias(0)", "must be 1 or more, got 0"),
        ("whiten(0)", "whiten takes a number above 0"),
        ("smooth(much)", r"'smooth\(much\)' must have numbers in its parentheses"),
        ("smooth(nan)", "must have numbers"),
        (None, "got 'None'"),
    ],
)
def test_a_wrong_line_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        parse_treatment(text)


def test_debias_leaves_nothing_along_the_first_directions_of_the_blank_image() -> None:
    tap, blank = random_tap(0), random_tap(1)
    learned = learn_from_blank(blank, "adaln > debias(5)")
    found = apply_treatment(tap, "adaln > debias(5)", learned=learned)
    tokens = apply_treatment(blank, "adaln").reshape(-1, 16).double().numpy()
    directions = np.linalg.svd(tokens)[2][:5]
    expected = apply_treatment(tap, "adaln").double().numpy()
    expected = expected - expected @ directions.T @ directions
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    assert abs(found.numpy() @ directions.T).max() < 1e-5


def test_a_share_of_energy_takes_as_many_directions_as_hold_it() -> None:
    blank = random_tap(1)
    blank = replace(blank, x=blank.x @ torch.diag(torch.tensor([9.0, 5.0, 3.0] + 13 * [0.01])))
    assert [len(learn_from_blank(blank, f"debias({a})")[0]) for a in (0.2, 0.999, 7)] == [1, 3, 7]


def test_whitening_makes_the_blank_images_covariance_that_of_unit_noise() -> None:
    blank = random_tap(1, tokens=600)
    blank = replace(blank, x=blank.x @ torch.diag(torch.linspace(0.1, 9, 16)))
    learned = learn_from_blank(blank, "whiten(1e-6)")
    white = apply_treatment(blank, "whiten(1e-6)", learned=learned).reshape(-1, 16)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(16), atol=5e-3, rtol=0)


def test_a_step_that_learns_says_what_it_was_not_given() -> None:
    with pytest.raises(InvalidArgumentError, match=r"debias\(0.99\) learns from a blank image"):
        apply_treatment(random_tap(), "debias")
    with pytest.raises(InvalidArgumentError, match="give 15 at most"):
        learn_from_blank(random_tap(), "debias(16)")


def test_full_smoothing_levels_every_channel_and_keeps_dead_ones() -> None:
    tap = random_tap()
    x = tap.x * torch.logspace(-3, 5, 16)
    x[..., 2] = 0
    smoothed = apply_treatment(replace(tap, x=x), "smooth(1)")
    reach = smoothed.abs().amax(1)
    assert torch.equal(reach[:, 2], torch.zeros(2))
    torch.testing.assert_close(reach[:, [0, 1, *range(3, 16)]], torch.ones(2, 15))
    assert torch.equal(apply_treatment(replace(tap, x=x), "smooth(0)"), x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"name": "De Bias"}, "lower-case"), ({"apply": 3}, "must be functions, got 3")],
)
def test_a_malformed_step_is_refused(changes: dict[str, object], message: str) -> None:
    values: dict[str, object] = {"name": "a", "apply": replace, "cost": 1, "source": "a test"}
    with pytest.raises(InvalidArgumentError, match=message):
        TreatmentSpec(**{**values, **changes})  # type: ignore[arg-type]
