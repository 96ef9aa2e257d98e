"""The configuration of a DiTF descriptor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from kornia_ditf.backbones.spec import BackboneSpec
from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.tap import Facet
from kornia_ditf.treatments import Treatment, parse_treatment
from kornia_ditf.utils.checks import check_integer, check_one_of, check_timestep


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTFConfig:
    """Configuration of a `DiTF` descriptor.

    Args:
        block: whose input is taken, counted from 0 through all block lists.
        timestep: the paper's timestep in [0, 1000]; 0 is clean, 1000 is pure noise.
        long_side: length of the fitted image's longest side in pixels; None keeps the size.
        ensemble: number of noise draws that are averaged.
        treatment: `raw`, `adaln`, `adaln+discard` (the method), `discard+layernorm`, or a line of
            steps such as `adaln+discard > debias(0.99)` (see `parse_treatment`).
        massive_channels: channels to discard at `block`; `gates` reads them off the residual gates
            of the blocks before, without an image; None finds them, as at every other block (see
            `DiTF.massive_channels`).
        timesteps: describe at each of these in place of `timestep`, and average.
        blocks: describe at each of these in place of `block`, and join the channels after scaling
            each to unit length.
        facet: what is taken of the block: its `input`, or the `query`, `key` or `value` that its
            attention projects of it. The latter have no AdaLN: their treatment is `raw` by default.
        prompt: the text prompt when the caller gives none.
        seed: of the noise, combined with a hash of each image (see `draw_image_noise`).
        rows_per_forward: how many noisy images pass the transformer together; None tries all and
            halves while memory does not suffice. The result is the same.
        gradients: whether gradients reach the image.
        checks: compare a capture with what the block's attention receives when a block is
            `first` captured in a dtype, or `always`.

    Raises:
        InvalidArgumentError: a value is out of range.

    Example:
        >>> DiTFConfig(block=28, timestep=2600)
        Traceback (most recent call last):
        kornia_ditf.errors.InvalidArgumentError: timestep must lie in [0, 1000] (0 is clean,
        1000 is pure noise), got 2600
    """

    block: int
    timestep: float
    long_side: int | None = 640
    ensemble: int = 1
    treatment: str = "adaln+discard"
    massive_channels: tuple[int, ...] | Literal["gates"] | None = None
    timesteps: tuple[float, ...] | None = None
    blocks: tuple[int, ...] | None = None
    facet: Facet = "input"
    prompt: str = ""
    seed: int = 0
    rows_per_forward: int | None = None
    gradients: bool = False
    checks: Literal["first", "always"] = "first"

    def __post_init__(self) -> None:
        check_timestep(self.timestep)
        check_integer("block", self.block, minimum=0)
        check_integer("ensemble", self.ensemble, minimum=1)
        check_integer("seed", self.seed, minimum=-(2**63), maximum=2**63 - 1)
        for name in ("long_side", "rows_per_forward"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum=1)
        for name in ("timesteps", "blocks"):
            self._check_several(name)
        channels = self.massive_channels
        if channels is not None and channels != "gates":
            if isinstance(channels, str) or not isinstance(channels, Sequence):
                raise InvalidArgumentError(
                    "massive_channels must be a sequence of channels, 'gates' or None, "
                    f"got {channels!r}"
                )
            for channel in channels:
                check_integer("massive_channels", channel, minimum=0)
        if not isinstance(self.prompt, str):
            raise InvalidArgumentError(f"prompt must be a string, got {self.prompt!r}")
        if not isinstance(self.gradients, bool):
            raise InvalidArgumentError(f"gradients must be True or False, got {self.gradients!r}")
        check_one_of("checks", self.checks, ("first", "always"))
        check_one_of("facet", self.facet, get_args(Facet))
        object.__setattr__(self, "treatment", parse_treatment(self.treatment))
        if self.facet != "input" and self.steps.modulates:
            raise InvalidArgumentError(
                f"a block's {self.facet} has no AdaLN: use treatment='raw' or one without adaln, "
                f"got {str(self.treatment)!r}"
            )
        if self.facet != "input" and self.massive_channels == "gates":
            raise InvalidArgumentError(
                f"gates locate massive channels of a block's input, not of its {self.facet}; give "
                "massive_channels=None"
            )

    def _check_several(self, name: str) -> None:
        values = getattr(self, name)
        if values is None:
            return
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InvalidArgumentError(f"{name} must be a sequence or None, got {values!r}")
        for value in values:
            check_timestep(value) if name == "timesteps" else check_integer(name, value, minimum=0)
        if len(set(values)) < len(values):
            raise InvalidArgumentError(f"{name} must not repeat a value, got {values!r}")
        object.__setattr__(self, name, tuple(values))

    @property
    def all_timesteps(self) -> tuple[float, ...]:
        """The timesteps that are averaged."""
        return self.timesteps or (self.timestep,)

    @property
    def all_blocks(self) -> tuple[int, ...]:
        """The blocks that are joined."""
        return self.blocks or (self.block,)

    @property
    def single(self) -> bool:
        """Whether one block is taken at one timestep."""
        return self.timesteps is None and self.blocks is None

    def at(self, block: int, timestep: float) -> DiTFConfig:
        """Return the configuration for one block at one timestep; named channels hold there too."""
        return replace(self, block=block, timestep=timestep, blocks=None, timesteps=None)

    @property
    def steps(self) -> Treatment:
        """The treatment with the steps that it names."""
        return parse_treatment(self.treatment)

    @classmethod
    def from_spec(cls, spec: BackboneSpec, **changes: Any) -> DiTFConfig:
        """Return a backbone's preset, with changes.

        A preset's massive channels were measured at its own block and timestep; at others they
        are found anew.
        """
        names = {f.name for f in fields(cls)} - {"blocks"}  # a spec's are their number
        preset = {name: getattr(spec, name) for name in names if hasattr(spec, name)}
        moved = any(changes.get(n, preset[n]) != preset[n] for n in ("block", "timestep"))
        if moved or any(changes.get(n) is not None for n in ("blocks", "timesteps")):
            preset["massive_channels"] = None
        if changes.get("facet", "input") != "input":
            preset |= {"treatment": "raw", "massive_channels": None}
        return cls(**{**preset, **changes})
