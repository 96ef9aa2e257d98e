"""vismatch's contract: seven values from `_forward`, and a fixed list in get_matcher."""

import numpy as np
import torch

available_models = ["sift-nn"]


class BaseMatcher(torch.nn.Module):
    def __init__(self, device="cpu", **kwargs):
        super().__init__()
        self.device = device
        self.ransac_iters = kwargs.get("ransac_iters", 2000)

    @torch.inference_mode()
    def forward(self, img0, img1):
        found = self._forward(img0.to(self.device), img1.to(self.device))
        assert len(found) == 7
        arrays = [None if value is None else np.asarray(value) for value in found]
        names = ("matched_kpts0", "matched_kpts1", "all_kpts0", "all_kpts1", "all_desc0")
        names += ("all_desc1", "matched_confidences")
        return dict(zip(names, arrays, strict=True))


def get_matcher(matcher_name="sift-lightglue", device="cpu", max_num_keypoints=2048, **kwargs):
    raise RuntimeError(f"no matcher {matcher_name}")
