"""Upsamplers: descriptor maps on finer grids, guided by the image or not."""

from kornia_ditf.upsamplers.descriptor import UpsampledDescriptor
from kornia_ditf.upsamplers.upsampler import UPSAMPLERS, Upsampler, UpsamplerSpec, parse_upsampler

__all__ = ["UPSAMPLERS", "UpsampledDescriptor", "Upsampler", "UpsamplerSpec", "parse_upsampler"]
