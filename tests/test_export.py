from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kornia_ditf.errors import ImageError, InvalidArgumentError, MissingExtraError, OutputError
from kornia_ditf.export import export_descriptor, save_onnx
from kornia_ditf.registry.lookup import create_ditf


@pytest.mark.parametrize("options", [{}, {"timestep": 300, "ensemble": 2}])
def test_the_program_gives_what_the_descriptor_gives(options: dict[str, Any]) -> None:
    ditf = create_ditf("nano", long_side=64, block=1, **options)
    program = export_descriptor(ditf, (41, 83), batch=2)
    image = torch.rand(2, 3, 41, 83)
    inputs = (image, ditf.noise(image)) if ditf.has_noise else (image,)
    torch.testing.assert_close(program.module()(*inputs), ditf(image).data, atol=1e-6, rtol=0)


def test_the_program_can_be_compiled_whole() -> None:
    ditf = create_ditf("nano", long_side=None, block=1)
    program = export_descriptor(ditf, (32, 64))
    compiled = torch.compile(program.module(), backend="aot_eager", fullgraph=True)
    image = torch.rand(1, 3, 32, 64)
    torch.testing.assert_close(compiled(image), ditf(image).data, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_onnxruntime_gives_what_the_descriptor_gives(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    ditf = create_ditf("nano", long_side=64, block=1)
    path = save_onnx(ditf, tmp_path / "nano.onnx", (41, 83))
    assert [file.name for file in tmp_path.glob("nano*")] == ["nano.onnx"]
    session = runtime.InferenceSession(path)
    image = torch.rand(1, 3, 41, 83)
    [found] = session.run(["descriptors"], {"image": image.numpy()})
    expected = ditf(image).data
    tolerance = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=tolerance, rtol=0)


def test_massive_channels_must_be_known_before_a_graph_is_made() -> None:
    ditf = create_ditf("nano", long_side=64, block=1)
    ditf.backbone.transformer.patch_embed.proj.bias.data[7] += 1000
    with pytest.raises(InvalidArgumentError, match=r"must be known, and an image shows \[\(7,\)\]"):
        export_descriptor(ditf, (64, 64))
    image = torch.rand(1, 3, 64, 64)
    ditf.calibrate([image], keep=False)
    program = export_descriptor(ditf, (64, 64))
    torch.testing.assert_close(program.module()(image), ditf(image).data, atol=1e-5, rtol=0)


def test_what_cannot_be_exported_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidArgumentError, match="only a DiTF can be exported, got Linear"):
        export_descriptor(torch.nn.Linear(2, 2), (64, 64))  # type: ignore[arg-type]
    ditf = create_ditf("nano", long_side=64, block=1)
    with pytest.raises(ImageError, match="too small"):
        export_descriptor(ditf, (4, 4))
    with pytest.raises(InvalidArgumentError, match="batch must be 1 or more"):
        export_descriptor(ditf, (64, 64), batch=0)
    with pytest.raises(OutputError, match="there is no folder"):
        save_onnx(ditf, tmp_path / "nowhere" / "nano.onnx", (64, 64))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kornia-ditf\[export\]'"):
        save_onnx(ditf, tmp_path / "nano.onnx", (64, 64))
