"""The rules that every backbone keeps, and `check_backbone`, which applies them.

They run on a tiny random model of the family's real architecture in its real file layout.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.config import DiTFConfig
from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import ConformanceError
from kornia_ditf.testing import captures, checkpoints, invariances
from kornia_ditf.testing.descriptors import DESCRIPTOR_RULES, Described
from kornia_ditf.testing.loaded import TIMESTEP, Loaded
from kornia_ditf.testing.rules import Broken, check_rules, expect_close, rounding
from kornia_ditf.utils.checks import read_dtype


def the_whole_chain_describes_images(subject: Loaded) -> None:
    """From image to map, a DiTF on the backbone keeps every rule of descriptors."""
    side = subject.backbone.pixels_per_token
    config = DiTFConfig(block=0, timestep=TIMESTEP, long_side=None, ensemble=2)
    ditf = DiTF(subject.backbone, config)
    described = Described(
        descriptor=ditf, size=(4 * side, 5 * side), tolerance=rounding(subject.dtype)
    )
    try:
        check_rules("the descriptor", described, DESCRIPTOR_RULES)
    except ConformanceError as error:
        raise Broken(
            " ".join(str(error).split()), "look at `encode` first: taps have rules of their own"
        ) from error
    one_by_one = replace(config, rows_per_forward=1, massive_channels=ditf.massive_channels())
    in_pieces = DiTF(subject.backbone, one_by_one)
    images = described.images(2)
    expect_close(
        in_pieces(images).data,
        ditf(images).data,
        "descriptors computed one noisy image at a time, and all together",
        "a row of the forward may not depend on other rows",
        tolerance=rounding(subject.dtype),
    )


BACKBONE_RULES: tuple[Callable[[Loaded], None], ...] = (
    checkpoints.spec_describes_the_model,
    captures.taps_have_their_shapes,
    captures.tokens_stand_where_they_belong,
    captures.modulation_is_what_the_block_applies,
    captures.forward_stops_at_the_block,
    captures.nothing_is_left_behind,
    checkpoints.loading_a_part_equals_loading_all,
    checkpoints.the_plan_is_what_is_held,
    checkpoints.dtypes_are_kept,
    invariances.results_repeat,
    invariances.images_do_not_depend_on_their_batch,
    invariances.every_shape_of_image_is_taken,
    invariances.prompts_are_rows_of_their_own,
    invariances.time_reaches_the_block,
    checkpoints.wrong_input_is_refused,
    the_whole_chain_describes_images,
)


def check_backbone(
    spec: BackboneSpec,
    source: str | Path | None = None,
    *,
    dtype: str | torch.dtype = torch.float32,
    rules: Sequence[str] | None = None,
    **options: Any,
) -> tuple[str, ...]:
    """Check that a backbone keeps every rule of `BACKBONE_RULES`.

    Args:
        spec: the backbone's spec; its `load` is what is checked.
        source: a folder with a tiny random model in the layout of the real repository; None is
            the spec's own `repo`, which may be a folder too.
        dtype: of the transformer; check float32 and bfloat16.
        rules: the names of those to check; None checks all.
        options: what `load` is called with besides `dtype` and `block`.

    Returns:
        the names of the rules that hold; a rule that has nothing to apply to is left out.

    Raises:
        ConformanceError: it breaks some; the message says which, what was seen and what to do.
        InvalidArgumentError: there is no rule of a name.

    Example:
        >>> from kornia_ditf import find_backbone
        >>> nano = find_backbone("nano")
        >>> check_backbone(nano, rules=["forward_stops_at_the_block"])
        ('forward_stops_at_the_block',)
    """
    place = spec.repo if source is None else source
    subject = Loaded(spec=spec, source=place, dtype=read_dtype(dtype), options=options)
    # Embeddings of tiny text encoders stay out of the user's cache.
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, {"KORNIA_DITF_CACHE": folder}),
    ):
        return check_rules(f"the backbone {spec.name!r}", subject, BACKBONE_RULES, rules)
