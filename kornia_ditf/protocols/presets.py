"""The named protocols, each with its source; docs/protocols.md compares them."""

from __future__ import annotations

from dataclasses import replace

from kornia_ditf.errors import InvalidArgumentError
from kornia_ditf.matching.propagation import Propagation
from kornia_ditf.protocols.protocol import Decode, Fit, PoseEstimation, Protocol
from kornia_ditf.utils.checks import no_such

_DIFT = "DIFT, arXiv 2306.03881"
_DITF = "DiTF, arXiv 2505.18584"
_GEOAWARE = "GeoAware-SC, arXiv 2311.17034, pck_train.py"
_DIFT_PROMPT = "a photo of a {label}"

_DITF_SPAIR = Protocol(
    name="ditf-spair",
    source=f"{_DITF}, eval_spair.py",
    datasets=("spair-71k", "spair-u"),
    fit=Fit(kind="long-side", side=640, multiple=16, upright=False),
    hints={
        "timestep": 260,
        "block": 28,
        "ensemble": 8,
        "treatment": "adaln+discard",
        "prompt": _DIFT_PROMPT,  # theirs is a caption per image, which costs .3 points less
    },
)
_DITF_SPAIR_960 = replace(
    _DITF_SPAIR,
    name="ditf-spair-960",
    source=f"{_DITF}: as ditf-spair, at the image size of the paper's appendix (second-hand)",
    fit=Fit(kind="long-side", side=960, multiple=16, upright=False),
)
_SD_DINO_SPAIR = Protocol(
    name="sd-dino-spair",
    source="sd-dino, arXiv 2305.15347, pck_spair_pascal.py: 20 pairs a category, its default",
    datasets=("spair-71k", "spair-u"),
    fit=Fit(kind="pad", side=840, upright=False),
    decode=Decode(kind="tokens", offset=-0.5),
    comparison="<",
    canvas=840,
    per_category=20,
    hints={"timestep": 100, "stable_diffusion_side": 960},
)
_GEOAWARE_SPAIR = Protocol(
    name="geoaware-spair",
    source=f"{_GEOAWARE}, window soft-argmax of trained descriptors",
    datasets=("spair-71k", "spair-u"),
    fit=Fit(kind="pad", side=840, upright=False),
    decode=Decode(kind="window", beta=0.02, radius=7),
    comparison="<",
    canvas=840,
    hints={"timestep": 50, "stable_diffusion_side": 960, "prompt": _DIFT_PROMPT},
)
_PF_WILLOW = Protocol(
    name="pf-willow",
    source="Proposal Flow, arXiv 1511.05065: thresholds relative to the extent of the keypoints",
    datasets=("pf-willow",),
    fit=Fit(upright=False),
    base="points",
    alphas=(0.05, 0.1, 0.15),
)
_DAVIS_DINO = Protocol(
    name="davis-dino",
    source="DINO, arXiv 2104.14294, eval_video_segmentation.py",
    task="masks",
    datasets=("davis-2017",),
    fit=Fit(kind="short-side", side=480, multiple=64),
    propagation=Propagation(top_k=5, last_frames=7, radius=12, temperature=0.1),
    hints={"pixels_per_token": 16},
)
_PLAIN_POSE = Protocol(
    name="plain-pose",
    source="kornia_ditf: images as they are; the best of six thresholds, as in glue-factory",
    task="pose",
    datasets=("posed-pairs", "synthetic"),
    base="pixels",
    comparison="<",
    alphas=(5e-4,),
    pose=PoseEstimation(),
)

PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        name="plain",
        source="kornia_ditf: each descriptor fits images as it does by itself",
        datasets=("folder", "synthetic"),
        base="image",
    ),
    Protocol(
        name="plain-homography",
        source="kornia_ditf: mutually nearest tokens; homography by least median of squares",
        task="homography",
        datasets=("synthetic", "hpatches"),
        base="pixels",
        alphas=tuple(range(1, 11)),
    ),
    _PLAIN_POSE,
    replace(
        _PLAIN_POSE,
        name="superglue-scannet",
        source="SuperGlue, arXiv 1911.11763, match_pairs.py --resize 640 480",
        fit=Fit(kind="long-side", side=640, multiple=16),
        pose=PoseEstimation(thresholds=(1.0,)),
    ),
    replace(
        _PLAIN_POSE,
        name="superglue-yfcc",
        source="SuperGlue, arXiv 1911.11763, match_pairs.py --resize 1600",
        fit=Fit(kind="long-side", side=1600),
        pose=PoseEstimation(thresholds=(1.0,)),
    ),
    replace(
        _PLAIN_POSE,
        name="loftr-scannet",
        source="LoFTR, arXiv 2104.00680, indoor test",
        fit=Fit(kind="long-side", side=640, multiple=16),
        pose=PoseEstimation(thresholds=(0.5,)),
    ),
    replace(
        _PLAIN_POSE,
        name="loftr-megadepth",
        source="LoFTR, arXiv 2104.00680, outdoor test",
        fit=Fit(kind="long-side", side=840, multiple=8),
        alphas=(1e-4,),
        pose=PoseEstimation(thresholds=(0.5,)),
    ),
    replace(
        _PLAIN_POSE,
        name="gluefactory-megadepth",
        source="glue-factory, gluefactory.eval.megadepth1500, eval.estimator=poselib",
        fit=Fit(kind="long-side", side=1600),
        alphas=(1e-4, 5e-4, 1e-3),
        pose=PoseEstimation(estimator="poselib", confidence=0.9999),  # PoseLib's own
    ),
    Protocol(
        name="dift-spair",
        source=f"{_DIFT}, eval_spair.py",
        datasets=("spair-71k", "spair-u"),
        fit=Fit(kind="squash", side=768, upright=False),
        hints={"timestep": 261, "up_block": 1, "ensemble": 8, "prompt": _DIFT_PROMPT},
    ),
    _DITF_SPAIR,
    _DITF_SPAIR_960,
    replace(
        _DITF_SPAIR_960,
        name="ditf-spair-dagger",
        source=f"{_DITF}: as ditf-spair-960, with the joint PCA of the rows marked with a dagger "
        "(second-hand)",
        pca=1280,
    ),
    _SD_DINO_SPAIR,
    _GEOAWARE_SPAIR,
    replace(
        _GEOAWARE_SPAIR,
        name="geoaware-spair-zero-shot",
        source=f"{_GEOAWARE} with configs/eval_zero_shot_spair.yaml, without its adaptive flip",
        decode=Decode(kind="window", beta=0.02, radius=5),
    ),
    *(
        replace(
            _GEOAWARE_SPAIR,
            name=f"geoaware-ap10k-{kind}",
            datasets=("ap-10k",),
            compat=frozenset({"visibility-scaling"}),
            hints={"split": split},
        )
        for kind, split in (
            ("intra-species", "test"),
            ("cross-species", "test_cross_species"),
            ("cross-family", "test_cross_family"),
        )
    ),
    Protocol(
        name="pf-pascal",
        source="SD4Match, arXiv 2310.17569: thresholds relative to the longer side of image B",
        datasets=("pf-pascal",),
        fit=Fit(upright=False),
        base="image",
        alphas=(0.05, 0.1, 0.15),
    ),
    replace(
        _SD_DINO_SPAIR,
        name="sd-dino-pf-pascal",
        source="sd-dino, arXiv 2305.15347, pck_spair_pascal.py --PASCAL",
        datasets=("pf-pascal",),
        base="canvas",
        alphas=(0.05, 0.1, 0.15),
        per_category=0,
    ),
    replace(
        _GEOAWARE_SPAIR,
        name="geoaware-pf-pascal",
        datasets=("pf-pascal",),
        base="canvas",
        alphas=(0.05, 0.1, 0.15),
    ),
    _PF_WILLOW,
    replace(
        _PF_WILLOW,
        name="pf-willow-padded",
        source="dhpf and CATs, threshold `bbox`: inflated by keypoints that are none",
        compat=frozenset({"willow-padding"}),
    ),
    Protocol(
        name="tss",
        source="TSS, Taniai et al., CVPR 2016: 5 px where the longer side has 100, here of image B",
        datasets=("tss",),
        fit=Fit(upright=False),
        base="image",
        alphas=(0.05,),
    ),
    Protocol(
        name="navi",
        source="kornia_ditf, by bins of 30 degrees as Probe3D (arXiv 2404.08636), which measures "
        "at 2 cm in space and 5, 25 and 50 of 512 px, on matches that it selects",
        datasets=("navi",),
        base="image",
    ),
    Protocol(
        name="cub",
        source="kornia_ditf: PCK relative to the box; no list of pairs is shared",
        datasets=("cub",),
        fit=Fit(upright=False),
        alphas=(0.1, 0.05),
    ),
    Protocol(
        name="jhmdb-frames",
        source="kornia_ditf: joints of a later frame, labels not propagated",
        datasets=("jhmdb",),
        fit=Fit(upright=False),
        base="points",
        alphas=(0.2, 0.1),
    ),
    Protocol(
        name="dift-hpatches",
        source=f"{_DIFT}, eval_hpatches.py and eval_homography.py",
        task="homography",
        datasets=("hpatches",),
        fit=Fit(kind="squash", side=768, upright=False),
        base="pixels",
        alphas=tuple(range(1, 11)),
        compat=frozenset({"dift-sampling"}),
        hints={"timestep": 0, "up_block": 2, "ensemble": 8, "keypoints": "superpoint-1k"},
    ),
    _DAVIS_DINO,
    replace(
        _DAVIS_DINO,
        name="davis-dift",
        source=f"{_DIFT}, eval_davis.py",
        fit=Fit(kind="short-side", side=480, multiple=32),
        propagation=Propagation(top_k=15, last_frames=28, radius=15, temperature=0.2),
        compat=frozenset({"short-shooting"}),
        hints={"timestep": 51, "up_block": 2, "pixels_per_token": 8},
    ),
    replace(
        _DAVIS_DINO,
        name="davis-ditf",
        source=f"{_DITF}, eval_davis.py",
        fit=Fit(kind="short-side", side=960, multiple=32),
        hints={
            "timestep": 90,
            "block": 24,
            "ensemble": 1,
            "prompt": "a photo of a image",
            "pixels_per_token": 16,
        },
    ),
)


def list_protocols() -> dict[str, Protocol]:
    """List the named protocols.

    Example:
        >>> list_protocols()["dift-spair"].fit.side
        768
    """
    return {protocol.name: protocol for protocol in PROTOCOLS}


def find_protocol(name: str) -> Protocol:
    """Find a protocol by its name.

    Raises:
        InvalidArgumentError: no protocol has it.
    """
    known = list_protocols()
    if name in known:
        return known[name]
    raise InvalidArgumentError(no_such("protocol", name, known))
