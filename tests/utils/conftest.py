from __future__ import annotations

import numpy as np
import pytest
from image_files import colour_image


@pytest.fixture
def colour() -> np.ndarray:
    return colour_image()


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
