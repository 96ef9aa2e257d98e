"""What files are that hold no transformer: told by their first bytes, or by their tensors."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

_UNET = (
    "a UNet of Stable Diffusion, which is no DiT; with kornia-ditf-sd it is used in memory: "
    "pipe = {}.from_single_file(...), then create_descriptor(pipe)"
)
_LORA = (
    "a LoRA or another adapter{}, which changes a model and is none; load it into the model's "
    "pipeline, pipe.load_lora_weights({!r}), then create_descriptor(pipe)"
)
_ADAPTER = r"(^|\.)(lora_|lora\.)|\.(lora_[AB]|lora_down|hada_w1|lokr_w1|dora_scale|diff_b?$)"
_TRANSFORMER = "; name the file of the transformer"
# What files hold, by a tensor that none else has; the first that is found is told.
_BY_TENSOR = (
    (r"^emb_params$|^string_to_param|^clip_[lg]$", "a textual inversion and no model"),
    (r"^(image_proj|ip_adapter)\.|\.ip_adapter", "an IP-Adapter, which is no backbone"),
    (r"(^|\.)(controlnet_|control_model\.|input_hint_block)", "a ControlNet, which is no backbone"),
    (r"(^|\.)label_emb\.0\.0\.weight$", _UNET.format("StableDiffusionXLPipeline")),
    (
        r"(^|\.)(input_blocks|down_blocks)\.1\..*(transformer_blocks|resnets|in_layers)",
        _UNET.format("StableDiffusionPipeline"),
    ),
    (
        r"^(first_stage_model\.)?((en|de)coder\.(down|conv_in|layers\.\d\.weight|conv1)|quant_conv)",
        f"a VAE and no transformer{_TRANSFORMER}",
    ),
    (
        r"embeddings\.(cls_token|patch_embeddings)|^cls_token$|vision_(model|tower)\.|^visual\.",
        f"an image encoder and no Diffusion Transformer{_TRANSFORMER}",
    ),
    (
        r"(^|\.)(text_model|token_embd|blk|embed_tokens|shared|encoder\.block|resblocks)\.",
        f"a text encoder or language model{_TRANSFORMER}",
    ),
    (r"^conv_first\.|^model\.0\.weight$|\.rdb\d", "a model that enlarges images, no transformer"),
)
_ARCHIVE = "an archive; unpack it, and name the folder or the .safetensors file in it"
_WEB_PAGE = (
    "a web page or message of a server and no weights, as a download without the login or the "
    "accepted licence gives; get it with: hf download OWNER/NAME FILE"
)
_PLAIN = "; name its weights as safetensors or GGUF"
_BY_START = (
    (
        rb"version https://git-lfs",
        "a pointer of Git LFS and not the file itself; type `git lfs pull` in its folder",
    ),
    (rb"\s*<", _WEB_PAGE),
    (rb"\s*\{\s*\"(error|message)|[A-Z][a-z]+ ", _WEB_PAGE),
    (rb"\s*[\[{]", "JSON and no weights; name the folder of the whole model"),
    (rb"\x1f\x8b|\xfd7zXZ|7z\xbc\xaf|Rar!|BZh|\x28\xb5\x2f\xfd", _ARCHIVE),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF", "a picture and no model"),
    (rb"\x89HDF", f"an HDF5 file, as Keras writes{_PLAIN}"),
    (rb"ggml|ggjt|lmgg|tjgg", "a GGML file, which came before GGUF; get the model as GGUF"),
)
_BY_ENDING = {
    ".onnx": "an ONNX graph",
    ".msgpack": "a file of Flax",
    ".pdparams": "a file of Paddle",
    ".engine": "an engine of TensorRT",
    ".plan": "an engine of TensorRT",
    ".npz": "arrays of NumPy",
}
# The header's length, below 16 MB, and the header; what comes first may look like anything else.
_SAFETENSORS = re.compile(rb"(?s).{3}\0{5}\{")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")


def explain_content(path: Path) -> str | None:
    """Return what a file is that is neither safetensors nor GGUF; None if unknown."""
    with path.open("rb") as file:
        start = file.read(512)
    if _SAFETENSORS.match(start) or start.startswith(b"GGUF"):
        return None
    content = next((content for bytes_, content in _BY_START if re.match(bytes_, start)), None)
    if not start:
        content = "empty; download it again"
    elif start.startswith(b"PK"):
        content = _explain_pickle(path) if _is_torch(path) else _ARCHIVE
    elif _PICKLE.match(start):
        content = _explain_pickle(path)
    elif content is None and start[257:262] == b"ustar":
        content = _ARCHIVE
    elif content is None and path.suffix.lower() in _BY_ENDING:
        content = _BY_ENDING[path.suffix.lower()] + _PLAIN
    return None if content is None else f"{path} is {content}"


def explain_tensors(path: Path, names: Iterable[str], metadata: Mapping[str, str]) -> str | None:
    """Return what a file of weights without a transformer holds; None if unknown.

    Args:
        path: named in the text.
        names: of its tensors.
        metadata: what its writer noted; trainers of adapters note the model that they are for.
    """
    names = list(names)
    if any(re.search(_ADAPTER, name) for name in names):
        keys = ("modelspec.architecture", "ss_base_model_version", "base_model")
        base = next((metadata[key] for key in keys if metadata.get(key)), None)
        return f"{path} holds {_LORA.format(f' (for {base})' if base else '', path.name)}"
    inside = [name for name in names if "diffusion_model." in name]  # beside its text encoders
    for pattern, content in _BY_TENSOR:
        if any(re.search(pattern, name) for name in inside or names):
            return f"{path} holds {content}"
    return None


def _explain_pickle(path: Path) -> str:
    target = path.with_suffix(".safetensors").name
    return (
        "a pickle, which is not read because it can run code; get it as safetensors, or convert "
        'its tensors, which this command reads without running any: python -c "import torch; from '
        f"safetensors.torch import save_file; d = torch.load({path.name!r}, 'cpu', "
        "weights_only=True); d = d.get('state_dict', d); save_file({k: v.clone().contiguous() "
        f"for k, v in d.items() if hasattr(v, 'clone')}}, {target!r})\""
    )


def _is_torch(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return path.suffix.lower() != ".zip"
