"""Keep a Kornia matcher's detector and matching, and swap its descriptor for a dense one.

python examples/swap_kornia_descriptor.py
"""

from __future__ import annotations

from pathlib import Path

import kornia.feature as KF
import torch
from kornia.geometry.ransac import RANSAC

import kornia_ditf as kd

DATA = Path(__file__).parent / "data"


def main() -> None:
    images = [kd.read_image(DATA / f"graffiti_{name}.jpg") for name in "ab"]
    grey = [image.mean(1, keepdim=True) for image in images]  # Kornia's detectors take one channel
    detector = KF.ScaleSpaceDetector(1000, resp_module=KF.BlobHessian())
    descriptors = {
        "SIFT": KF.LAFDescriptor(KF.SIFTDescriptor(41), patch_size=41),
        "nano": kd.DiTFDescriptor("nano"),
    }
    for name, descriptor in descriptors.items():
        local = KF.LocalFeature(detector, descriptor, scaling_coef=3.0)
        matcher = KF.LocalFeatureMatcher(local, KF.DescriptorMatcher("smnn", 0.95))
        with torch.inference_mode():
            matches = matcher({"image0": grey[0], "image1": grey[1]})
            found = RANSAC("homography", inl_th=5.0, seed=0)(
                matches["keypoints0"], matches["keypoints1"]
            )
        print(f"{name}: {len(found[1])} matches, {int(found[1].sum())} of them on one plane")


if __name__ == "__main__":
    main()
