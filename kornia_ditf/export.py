"""Export of a DiTF for one image size, as a `torch.export` graph or as ONNX."""

from __future__ import annotations

import warnings
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kornia_ditf.descriptor import DiTF
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.utils.checks import check_integer
from kornia_ditf.utils.extras import import_extra
from kornia_ditf.utils.files import atomic_write
from kornia_ditf.utils.values import unchecked_values

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def export_descriptor(
    descriptor: DiTF, image_size: tuple[int, int], *, batch: int = 1, prompt: str | None = None
) -> ExportedProgram:
    """Export a descriptor for images of one size, from resizing to treatment.

    The graph is traced through the very code that `DiTF.forward` runs, and gives what that gives.
    Its `module()` is what `torch.compile` can compile whole. `DiTF.forward` seeds noise by a hash
    of the image, which a graph cannot hold: where the timestep has noise, the draws are the
    program's second input, and `descriptor.noise(images)` gives those of the descriptor.

    Args:
        descriptor: a DiTF. Where its massive channels are not known, an image of noise must show
            none: a graph cannot search each image as `DiTF.forward` does.
        image_size: height and width of the images.
        batch: how many images at a time.
        prompt: what the backbone is told, where it reads text.

    Returns:
        a program from images (batch, 3, H, W), RGB in [0, 1], and, unless `descriptor.has_noise`
        is False, noise (batch, ensemble, C, h, w), all in float32, to descriptors (batch, D, rows,
        columns), which are the `data` of `DiTF.forward`.

    Raises:
        InvalidArgumentError: another descriptor, one that has massive channels which are not
            known, or one that samples the posterior of its VAE.
        ImageError: the images would be too small or too thin.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    if not isinstance(descriptor, DiTF):
        raise InvalidArgumentError(
            f"only a DiTF can be exported, got {type(descriptor).__name__}: see create_ditf"
        )
    check_integer("batch", batch, minimum=1)
    device = next(descriptor.parameters()).device
    example = torch.rand(batch, 3, *image_size, device=device)
    with torch.no_grad():
        # With all its checks, which a graph cannot hold.
        discarded = descriptor(example, prompt).discarded
        found = [each.channels for each in discarded if each.source == "this image"]
        if any(found):
            raise InvalidArgumentError(
                f"the massive channels of this backbone must be known, and an image shows {found}; "
                "run calibrate(images) of the descriptor, or give massive_channels=(...)"
            )
        if getattr(descriptor.backbone, "posterior", "mode") == "sample":
            raise InvalidArgumentError(
                "posterior='sample' draws noise that depends on the image and cannot be "
                "exported; use 'mode'"
            )
        inputs = (example, descriptor.noise(example)) if descriptor.has_noise else (example,)
        with unchecked_values():
            graph = make_fx(partial(_describe, descriptor, prompt))(*inputs)
        return torch.export.export(graph.eval(), inputs)


def save_onnx(
    descriptor: DiTF,
    path: str | Path,
    image_size: tuple[int, int],
    *,
    batch: int = 1,
    prompt: str | None = None,
) -> Path:
    """Write a descriptor for images of one size as an ONNX file, with its weights.

    Its inputs are `image` and, where the timestep has noise, `noise`; its output is `descriptors`.
    Arguments as in `export_descriptor`; needs the extra `export`.

    Returns:
        the file's path.

    Raises:
        MissingExtraError: the extra is not installed.
        OutputError: the file cannot be written.
        InvalidArgumentError: as `export_descriptor`.
    """
    import_extra("onnxscript", "ONNX needs onnxscript", "kornia-ditf[export]")
    program = export_descriptor(descriptor, image_size, batch=batch, prompt=prompt)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.onnx.export(
            program,
            dynamo=True,
            input_names=["image", "noise"] if descriptor.has_noise else ["image"],
            output_names=["descriptors"],
            verbose=False,
        )
    assert model is not None
    with atomic_write(Path(path)) as temporary:
        model.save(temporary)
    return Path(path)


def _describe(
    descriptor: DiTF, prompt: str | None, image: Tensor, noise: Tensor | None = None
) -> Tensor:
    given = copy(descriptor)
    if given.massive_channels() is None:
        given.config = replace(given.config, massive_channels=())
    if noise is not None:
        given.__dict__["_noise"] = lambda *_: noise
    return given.forward(image, prompt).data
