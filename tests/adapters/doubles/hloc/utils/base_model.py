"""hloc's contract: exactly one subclass of BaseModel, defined in ROOT.NAME."""

import inspect
from importlib import import_module

from torch import nn


class BaseModel(nn.Module):
    default_conf = {}
    required_inputs = []

    def __init__(self, conf):
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)

    def forward(self, data):
        assert set(self.required_inputs) <= set(data)
        return self._forward(data)


def dynamic_load(root, model):
    path = f"{root.__name__}.{model}"
    [found] = [
        value
        for _, value in inspect.getmembers(import_module(path), inspect.isclass)
        if value.__module__ == path and issubclass(value, BaseModel)
    ]
    return found
