"""Finding image matchers by name, and loading them; any dense descriptor is one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from kornia_ditf.errors import MissingExtraError, UnknownBackboneError
from kornia_ditf.loading.checkpoint import hub_options
from kornia_ditf.matchers.base import (
    ImageMatcher,
    MatcherSpec,
    set_options,
)
from kornia_ditf.matchers.described import DescriptorMatcher
from kornia_ditf.matchers.vismatch import PREFIX, list_vismatch, vismatch_spec
from kornia_ditf.registry.lookup import (
    CATALOGUE,
    create_descriptor,
    find_descriptor,
    load_spec,
)
from kornia_ditf.registry.options import known_options
from kornia_ditf.registry.plugins import describe_error
from kornia_ditf.utils.checks import no_such

_OF_ALL = ("verification", "threshold")
OF_DESCRIPTORS = ("detector", "max_keypoints", "ratio", "refined", "prompt")


def list_matchers() -> dict[str, MatcherSpec]:
    """List the installed matchers by name, except dense descriptors, without loading any.

    Example:
        >>> list_matchers()["sift"].source
        'Lowe, IJCV 2004'
    """
    return {spec.name: spec for spec in (*CATALOGUE.of(MatcherSpec), *list_vismatch())}


def find_matcher(name: str) -> MatcherSpec:
    """Find a matcher's spec by name, or create one for a dense descriptor.

    Args:
        name: an installed matcher's, `vismatch:NAME`, or whatever `create_descriptor` takes.

    Raises:
        UnknownBackboneError: neither a matcher nor a descriptor.
    """
    if name.startswith(PREFIX):
        return vismatch_spec(name.removeprefix(PREFIX))
    found = CATALOGUE.get(name)
    if isinstance(found, MatcherSpec):
        return found
    try:
        spec = find_descriptor(name)
    except UnknownBackboneError as error:
        raise UnknownBackboneError(
            f"{no_such('matcher', name, list_matchers())}, or any of `kornia-ditf backbones`"
        ) from error
    return MatcherSpec(
        name=spec.name,
        load=partial(_load_descriptor_matcher, name),
        source=spec.source,
        license=spec.license,
    )


def load_matcher(name: str, **options: Any) -> ImageMatcher:
    """Load an image matcher by name.

    Args:
        name: an installed matcher's (`sift`, `loftr` ...), `vismatch:NAME`, or a dense
            descriptor's, whose tokens are matched.
        options: of every matcher: `verification` (`homography` or `fundamental`: keep what
            MAGSAC++ takes for inliers), its `threshold` in pixels, and `long_side`. Of
            descriptors: `detector` (of OpenCV, at whose keypoints descriptors are read),
            `max_keypoints`, `ratio` and `refined`, and those of `create_descriptor`. All others
            are the matcher's own: `ratio` and `max_keypoints` of local features,
            `random_weights` of learned ones, `device`.

    Raises:
        UnknownBackboneError: there is no such matcher.
        InvalidArgumentError: an option is unknown or wrong.
        MissingExtraError: a package that it needs is not installed.
        HubError: its weights cannot be had.

    Example:
        >>> image = torch.rand(3, 64, 96)
        >>> matches = load_matcher("sift").match(image, image)
        >>> bool(torch.equal(matches.points_a, matches.points_b))
        True
    """
    spec = find_matcher(name)
    reason = missing_for(spec)
    if reason:
        raise MissingExtraError(f"{spec.name} cannot be loaded: {reason}")
    shared, own = split_options(spec, options)
    matcher: ImageMatcher = load_spec(spec, (), own)
    return set_options(matcher, shared)


def missing_for(spec: MatcherSpec) -> str:
    """Return what a matcher lacks here, whatever its plugin does when it is asked."""
    try:
        return str(spec.lacks())
    except Exception as error:  # noqa: BLE001 - anybody's code
        return f"asked what it lacks, it failed with {describe_error(error)}"


def descriptor_of(spec: MatcherSpec) -> str | None:
    """Return the name of the dense descriptor that a matcher is made of, if it is."""
    load: Any = spec.load
    return load.args[0] if getattr(load, "func", None) is _load_descriptor_matcher else None


def split_options(
    spec: MatcherSpec, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that every matcher has, and those that are for its loader."""
    names = _OF_ALL if descriptor_of(spec) else (*_OF_ALL, "long_side")
    shared = {name: value for name, value in options.items() if name in names}
    return shared, {name: value for name, value in options.items() if name not in names}


def takes_device(name: str) -> bool:
    """Whether a matcher has the option `device`."""
    spec = find_matcher(name)
    return descriptor_of(spec) is not None or "device" in known_options(spec.load)


def _load_descriptor_matcher(name: str, **options: Any) -> DescriptorMatcher:
    """Create a matcher from a dense descriptor; options as in `create_descriptor`."""
    spec = find_descriptor(name, **hub_options(options))
    taken = [each for each in OF_DESCRIPTORS if each in options]
    own = {each: options.pop(each) for each in taken}
    return DescriptorMatcher(create_descriptor(spec.name, **options), **own)
