"""deep-image-matching's contract: one subclass of ExtractorBase, defined in ROOT.NAME."""

import inspect
from importlib import import_module

import cv2
import numpy as np


class ExtractorBase:
    _default_conf = {}
    grayscale = True
    as_float = True
    descriptor_size = 128

    def __init__(self, custom_config):
        self.config = {
            "general": custom_config.general,
            "extractor": {**self._default_conf, **custom_config.extractor},
        }
        self._device = "cpu"

    def extract(self, path):
        image = cv2.imread(str(path))  # BGR, in colour too
        if self.grayscale:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return self._extract(image.astype(np.float32) if self.as_float else image)


def extractor_loader(root, model):
    path = f"{root.__name__}.{model}"
    [found] = [
        value
        for _, value in inspect.getmembers(import_module(path), inspect.isclass)
        if value.__module__ == path and issubclass(value, ExtractorBase)
    ]
    return found
