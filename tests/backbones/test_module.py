from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kornia_ditf as kd
from kornia_ditf.backbones.module import ModuleBackbone
from kornia_ditf.errors import CaptureError, InvalidArgumentError
from kornia_ditf.tap import BlockStream, LinearModulation
from kornia_ditf.testing import BACKBONE_RULES, check_backbone
from kornia_ditf.treatments import modulate

EXAMPLE = Path(__file__).parents[2] / "examples/own_research_dit.py"
Rules = {rule.__name__ for rule in BACKBONE_RULES}


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_research_code_keeps_every_rule(dtype: str, example: dict[str, Any]) -> None:
    def load(
        source: str, *, block: int | None = None, dtype: Any = None, device: str = "cpu"
    ) -> Any:
        if block is not None and not 0 <= block < 4:
            raise InvalidArgumentError(f"sit has blocks 0 to 3, got {block}")
        return example["load"](dtype).to(device)

    spec = kd.BackboneSpec.uncalibrated(
        name="sit",
        repo="someone/sit",
        pipeline="SiT",
        load=load,
        blocks=4,
        width=48,
        pixels_per_token=8,
        long_side=64,
        license="CC0",
    )
    held = set(check_backbone(spec, dtype=dtype))
    assert Rules - held <= {"the_plan_is_what_is_held", "prompts_are_rows_of_their_own"}


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.rand(width) + 0.5), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt()


class InContext(nn.Module):
    """As JiT has it: a gain in the norm, and tokens of the class before those of the image."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.embed, self.words = nn.Conv2d(3, width, 4, 4), nn.Parameter(torch.rand(1, 5, width))
        self.blocks = nn.ModuleList(InContextBlock(width) for _ in range(2))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.words.expand(len(x), -1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens, t[:, None].expand(-1, tokens.shape[-1]))
        return tokens


class InContextBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = RMSNorm(width), nn.Linear(width, width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale, gate = self.adaLN_modulation(c).chunk(3, 1)
        modulated = self.norm1(x) * (1 + scale[:, None]) + shift[:, None]
        return x + gate[:, None] * self.attn(modulated)


def in_context(**changes: Any) -> ModuleBackbone:
    stream: dict[str, Any] = {
        "blocks": "blocks",
        "norm": "norm1",
        "attention": "attn",
        "modulation": LinearModulation("adaLN_modulation"),
        "tokens": "last",
    }
    stream |= {name: changes.pop(name) for name in list(changes) if name in stream}
    options = {"patch_size": 4, "latent_channels": 3, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = InContext()
    return ModuleBackbone(
        model,
        [BlockStream(**stream)],
        lambda latent, time, _: {"x": latent, "t": latent.new_full((len(latent),), time / 1000)},
        **options,
    )


def tap(backbone: ModuleBackbone, block: int = 1) -> kd.Tap:
    latent = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    return backbone.tap(latent, 250, backbone.condition([""]), block=block)


def test_tokens_before_the_image_are_left_out_and_the_gain_is_read() -> None:
    backbone = in_context()
    found = tap(backbone, block=0)
    assert (found.x.shape, found.grid, backbone.width) == ((1, 6, 16), (2, 3), 16)
    model: Any = backbone.transformer
    weight = model.blocks[0].norm1.weight
    assert found.norm.weight.data_ptr() == weight.data_ptr()
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modulation": LinearModulation("adaLN_modulation", shift=1, scale=0)}, "not modulate as"),
        ({"tokens": "first"}, "not modulate as|does not fit"),
        ({"tokens": "all"}, "does not fit an image grid"),
        ({"norm": "norm"}, "InContextBlock has no 'norm'"),
        ({"blocks": "layers"}, "has no 'layers'"),
    ],
)
def test_a_wrong_declaration_is_an_error(changes: dict[str, Any], message: str) -> None:
    if changes == {"tokens": "first"}:
        assert tap(in_context(**changes)).x.shape == (1, 6, 16)  # the words' own, modulated alike
        return
    with pytest.raises(CaptureError, match=message):
        tap(in_context(**changes))


def test_what_is_encoded_and_asked_can_be_declared() -> None:
    backbone = in_context(
        encode=lambda image: nn.functional.avg_pool2d(image, 2),
        pixels_per_cell=2,
        condition=lambda prompts: kd.Conditioning({"label": torch.zeros(len(prompts))}),
    )
    ditf = kd.DiTF(backbone, kd.DiTFConfig(block=1, timestep=250, long_side=64, treatment="adaln"))
    assert ditf(torch.rand(1, 3, 64, 48), "a word").grid == (8, 6)
    with pytest.raises(InvalidArgumentError, match="takes no prompts"):
        in_context().condition(["a word"])
    for wrong in ({"patch_size": 0}, {"latent_channels": 0}):
        with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
            in_context(**wrong)


def test_the_example_matches_two_photographs(
    example: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "matches from" in capsys.readouterr().out


class LightningBlock(nn.Module):
    """As LightningDiT has it: RMS norms, queries and keys normalised and turned, SwiGLU."""

    def __init__(self, width: int, shifts: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attn, self.shifts = LightningAttention(width), shifts
        self.w12, self.w3 = nn.Linear(width, 4 * width), nn.Linear(2 * width, width)
        chunks = 6 if shifts else 4
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, chunks * width))

    def forward(self, x: Tensor, c: Tensor, feat_rope: Tensor) -> Tensor:
        chunks = self.adaLN_modulation(c)[:, None].chunk(6 if self.shifts else 4, -1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (
            chunks if self.shifts else (0, chunks[0], chunks[1], 0, chunks[2], chunks[3])
        )
        x = x + gate * self.attn(self.norm1(x) * (1 + scale) + shift, rope=feat_rope)
        gated, value = self.w12(self.norm2(x) * (1 + scale_mlp) + shift_mlp).chunk(2, -1)
        return x + gate_mlp * self.w3(nn.functional.silu(gated) * value)


class LightningAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = RMSNorm(width // 2), RMSNorm(width // 2)

    def forward(self, x: Tensor, rope: Tensor) -> Tensor:
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, 2, -1).permute(2, 0, 3, 1, 4)
        turned = [
            norm(each) * rope for norm, each in zip((self.q_norm, self.k_norm), qkv, strict=False)
        ]
        found = nn.functional.scaled_dot_product_attention(turned[0], turned[1], qkv[2])
        return self.proj(found.transpose(1, 2).flatten(2))


class Lightning(nn.Module):
    def __init__(self, shifts: bool) -> None:
        super().__init__()
        self.x_embedder = nn.Conv2d(4, 16, 1)
        self.blocks = nn.ModuleList(LightningBlock(16, shifts) for _ in range(3))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        tokens = self.x_embedder(x).flatten(2).transpose(1, 2)
        rope = torch.linspace(0.5, 1, tokens.shape[1])[:, None].to(tokens)
        for block in self.blocks:
            tokens = block(tokens, t[:, None].expand(-1, 16), rope)
        return tokens


@pytest.mark.parametrize("shifts", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_lightning_dit_is_declared_with_and_without_shifts(
    shifts: bool, dtype: torch.dtype
) -> None:
    modulation = LinearModulation("adaLN_modulation.1", gates=(2, 5))
    if not shifts:
        modulation = LinearModulation("adaLN_modulation.1", shift=None, scale=0, gates=(1, 3))
    blocks = BlockStream(blocks="blocks", norm="norm1", attention="attn", modulation=modulation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Lightning(shifts).to(dtype)

    def inputs(latent: Tensor, time: float, _: kd.Conditioning) -> dict[str, Tensor]:
        return {"x": latent, "t": latent.new_full((len(latent),), 1 - time / 1000)}

    backbone = ModuleBackbone(model, [blocks], inputs, patch_size=1, latent_channels=4)
    latent = torch.rand(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    found = backbone.tap(latent, 250, backbone.condition([""]), block=2)
    seen: list[Tensor] = []
    model.blocks[2].attn.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(**inputs(latent.to(dtype), 250, backbone.condition([""])))
    tolerance = 8 * torch.finfo(dtype).eps * float(seen[0].abs().max())
    torch.testing.assert_close(modulate(found), seen[0], rtol=0, atol=tolerance)
    gates = backbone.gates(250, backbone.condition([""]), block=2)
    assert gates.shape == (4, 16) and (found.shift is None) is not shifts
