"""The rules that every `DenseDescriptor` keeps, DiT or not, and `check_descriptor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from kornia_ditf.dense import DenseDescriptor, DescriptorSpec
from kornia_ditf.testing.rules import (
    check_rules,
    expect,
    expect_close,
    expect_refusal,
    left_as_it_was,
    shared_noise,
)
from kornia_ditf.types import DescriptorMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A descriptor under test.

    Args:
        descriptor: the descriptor.
        size: height and width in pixels of the images to try; not square.
        tolerance: the part by which descriptors may differ through rounding.
    """

    descriptor: DenseDescriptor
    size: tuple[int, int]
    tolerance: float
    known: dict[tuple[int, int], DescriptorMap] = field(default_factory=dict)
    """Maps of single images, which rules share, by the size of the image."""

    def map_of(self, size: tuple[int, int]) -> DescriptorMap:
        """Describe an image of a size, once."""
        if size not in self.known:
            self.known[size] = self.descriptor(self.images(1, size))
        return self.known[size]

    def images(self, count: int = 1, size: tuple[int, int] | None = None) -> Tensor:
        """Create images of noise, always the same."""
        generator = torch.Generator().manual_seed(5)
        return torch.rand(count, 3, *(size or self.size), generator=generator)


def map_fits_the_image(subject: Described) -> None:
    """The map is (B, width, rows, columns), finite, and its frame is the image's."""
    images = subject.images(2)
    described = subject.descriptor(images)
    expect(
        isinstance(described, DescriptorMap),
        f"forward returned a {type(described).__name__}",
        "give a kornia_ditf.DescriptorMap",
    )
    data = described.data
    expect(
        data.shape[:2] == (2, subject.descriptor.width),
        f"2 images gave data of shape {tuple(data.shape)}; width is {subject.descriptor.width}",
        "one map row per image, and `width` channels",
    )
    expect(
        bool(data.isfinite().all()) and bool(data.std() > 0),
        "descriptors are NaN, infinite, or all the same",
        "check the weights and the dtype; randomise what is zero in a tiny model",
    )
    expect(
        described.frame.image_size == subject.size,
        f"an image of (height, width) {subject.size} gave the frame {described.frame}",
        "frame.image_size is the size of the image as it was given, before any scaling",
    )
    (height, width), (rows, columns) = subject.size, described.grid
    expect(
        (height > width) == (rows > columns),
        f"an image of (height, width) {subject.size} gave the grid {described.grid}",
        "grids are (rows, columns); rows run along the height",
    )


def descriptors_stand_where_they_belong(subject: Described) -> None:
    """What changes in a corner of the image changes descriptors in that corner most."""
    with shared_noise():
        image = subject.images(4)  # one alone may attend elsewhere by chance
        plain = subject.descriptor(image).data
    height, width = subject.size
    quarters = list(product((0, 1), (0, 1)))
    for top, left in quarters:
        changed = image.clone()
        corner = changed[..., _half(top, height), _half(left, width)]
        corner.copy_(1 - corner)
        with shared_noise():
            described = subject.descriptor(changed).data
        difference = (described - plain).norm(dim=1).mean(0)
        rows, columns = difference.shape
        means = [difference[_half(y, rows), _half(x, columns)].mean() for y, x in quarters]
        most = quarters[int(torch.stack(means).argmax())]
        expect(
            most == (top, left),
            f"the image changed in its quarter (row, column) {(top, left)}, the descriptors "
            f"most in {most}",
            "tokens run row by row; check the packing, the reshaping to (rows, columns), and "
            "which tokens are the image's",
        )


def _half(second: int, length: int) -> slice:
    # The middle is left out, where both halves see a change.
    margin = length // 4
    return slice(length - margin, length) if second else slice(0, margin)


def images_do_not_depend_on_their_batch(subject: Described) -> None:
    """An image has the same descriptors alone and among others."""
    images = subject.images(3)
    together = subject.descriptor(images).data
    alone = subject.descriptor(images[1:2]).data
    expect_close(
        together[1:2],
        alone,
        "the second of three images, and alone",
        "nothing may be averaged or drawn over the batch",
        tolerance=subject.tolerance,
    )


def results_repeat(subject: Described) -> None:
    """The same image has the same descriptors again, whatever ran in between."""
    image, other = subject.images(), subject.images(1, (subject.size[1], subject.size[0]))
    first = subject.map_of(subject.size).data
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        subject.descriptor(other)
        again = subject.descriptor(image).data
    expect_close(
        again,
        first,
        "twice the same image, another size between them",
        "seed what is drawn with a torch.Generator, and keep no state between images",
    )


def threads_do_not_disturb_one_another(subject: Described) -> None:
    """Calls from several threads give what they give one after another."""
    height, width = subject.size
    sizes = (subject.size, (width, height), (height, height))
    images = [subject.images(1, size) for size in sizes]
    expected = [subject.map_of(size).data for size in sizes]
    with ThreadPoolExecutor(len(images)) as pool:
        found = list(pool.map(lambda image: subject.descriptor(image).data, 2 * images))
    for data, alone in zip(found, 2 * expected, strict=True):
        expect_close(
            data,
            alone,
            "an image described while other threads describe others, and alone",
            "run a model under kornia_ditf.utils.hooks.run_with_hooks or utils.isolation.isolated",
            tolerance=subject.tolerance,
        )


def settings_of_the_caller_do_not_matter(subject: Described) -> None:
    """Neither torch's default dtype nor autocast changes a descriptor."""
    image = subject.images()
    expected = subject.map_of(subject.size).data
    found = {}
    before = torch.get_default_dtype()
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            found[f"the default dtype {dtype}"] = subject.descriptor(image).data
        finally:
            torch.set_default_dtype(before)
    with torch.autocast(expected.device.type, dtype=torch.bfloat16):
        found["autocast to torch.bfloat16"] = subject.descriptor(image).data
    for what, data in found.items():
        expect_close(
            data,
            expected,
            f"an image described under {what}, and without",
            "state the dtype of every tensor that is made, and run a model under "
            "kornia_ditf.utils.hooks.run_with_hooks or utils.isolation.isolated",
            tolerance=subject.tolerance,
        )


def every_shape_of_image_is_taken(subject: Described) -> None:
    """Wide, tall and uneven images are taken, and their maps know their pixels."""
    height, width = subject.size
    for size in ((width, height), (height, height), (height + 5, width - 3)):
        described = subject.map_of(size)
        expect(
            described.frame.image_size == size,
            f"an image of (height, width) {size} gave the frame {described.frame}",
            "frame.image_size is the size of the image as it was given",
        )
        centre = torch.tensor([[[size[1] / 2, size[0] / 2]]])
        expect(
            bool(described.at(centre).isfinite().all()),
            f"the descriptor in the middle of an image of {size} is not finite",
            "check the map of images whose sides are no multiples of a token",
        )


def several_images_are_described_together(subject: Described) -> None:
    """`describe_together` gives one map per image, in their order."""
    height, width = subject.size
    images = [subject.images(1, (width, height))[0], subject.images()[0]]
    maps = subject.descriptor.describe_together(images)
    expect(
        [each.frame.image_size for each in maps] == [(width, height), (height, width)]
        and all(len(each) == 1 for each in maps),
        f"two images gave {len(maps)} maps with frames {[each.frame for each in maps]}",
        "give one map with B = 1 per image, in the order of the images",
    )
    describe = subject.descriptor.describe_together
    expect_refusal("three prompts for two images", describe, images, ["a", "b", "c"])


def nothing_is_left_behind(subject: Described) -> None:
    """No hook, mode, weight or global setting is changed by describing an image."""
    with left_as_it_was(subject.descriptor):
        subject.descriptor(subject.images())


def bad_images_are_refused(subject: Described) -> None:
    """Inputs that are not images raise an error of ours."""
    image = subject.images()
    for what, bad in {
        "an image of NaN": torch.full_like(image, float("nan")),
        "an image from 0 to 255": 255 * image,
        "an image of four channels": torch.cat([image, image[:, :1]], 1),
        "an image of one pixel": image[..., :1, :1],
        "a file that is not there": "there/is/no/such.png",
    }.items():
        expect_refusal(what, subject.descriptor, bad)


def identity_is_a_name(subject: Described) -> None:
    """`identity` is None, or a text that stays the same."""
    identity = subject.descriptor.identity
    expect(
        identity is None or (isinstance(identity, str) and bool(identity)),
        f"identity is {identity!r}",
        "name the weights, the settings and the dtype in a text; None forbids caching",
    )
    subject.descriptor(subject.images())
    if identity is not None:
        expect(
            subject.descriptor.identity == identity,
            f"identity was {identity!r} and is {subject.descriptor.identity!r} after an image",
            "identity may depend on weights and settings alone; while that is not so, give None",
        )


DESCRIPTOR_RULES: tuple[Callable[[Described], None], ...] = (
    map_fits_the_image,
    descriptors_stand_where_they_belong,
    images_do_not_depend_on_their_batch,
    results_repeat,
    threads_do_not_disturb_one_another,
    settings_of_the_caller_do_not_matter,
    every_shape_of_image_is_taken,
    several_images_are_described_together,
    nothing_is_left_behind,
    bad_images_are_refused,
    identity_is_a_name,
)


def check_descriptor(
    descriptor: DenseDescriptor | DescriptorSpec,
    *,
    size: tuple[int, int] = (96, 160),
    tolerance: float = 1e-3,
    rules: Sequence[str] | None = None,
    **options: object,
) -> tuple[str, ...]:
    """Check that a dense descriptor keeps every rule of `DESCRIPTOR_RULES`.

    Args:
        descriptor: the descriptor, on tiny random weights for speed; or a spec, which is loaded.
        size: height and width in pixels of the images to try; not square, and large enough for
            a few tokens a side.
        tolerance: the part by which descriptors may differ through rounding, by length.
        rules: the names of those to check; None checks all.
        options: for a spec, what its `load` is called with.

    Returns:
        the names of the rules that hold.

    Raises:
        ConformanceError: it breaks some; the message says which, what was seen and what to do.
        InvalidArgumentError: there is no rule of a name.

    Example:
        >>> from kornia_ditf import create_descriptor
        >>> nano = create_descriptor("nano", long_side=160)
        >>> check_descriptor(nano, rules=["map_fits_the_image"])
        ('map_fits_the_image',)
    """
    what = f"the descriptor {type(descriptor).__name__}"
    if isinstance(descriptor, DescriptorSpec):
        what = f"the descriptor {descriptor.name!r}"
        descriptor = descriptor.load(**options)
    subject = Described(descriptor=descriptor, size=size, tolerance=tolerance)
    return check_rules(what, subject, DESCRIPTOR_RULES, rules)
