"""glue-factory's contract of models, with plain dictionaries in place of OmegaConf."""

from types import SimpleNamespace

from torch import nn


class Conf(dict):
    __getattr__ = dict.__getitem__


class BaseModel(nn.Module):
    default_conf = {"name": None, "trainable": True, "freeze_batch_normalization": False}
    required_data_keys = []

    def __init__(self, conf):
        super().__init__()
        self.state = SimpleNamespace(initialized=False)
        self.conf = Conf({**BaseModel.default_conf, **self.default_conf, **conf})
        self._init(self.conf)

    def set_initialized(self):
        self.state.initialized = True

    def forward(self, data):
        assert set(self.required_data_keys) <= set(data)
        return self._forward(data)
