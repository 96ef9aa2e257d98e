"""glue-factory's contract of names: a module's one BaseModel, or its `__main_model__`."""

import importlib.util
import inspect
from importlib import import_module

from .base_model import BaseModel


def get_model(name):
    for path in (name, f"{__name__}.{name}", f"{__name__}.extractors.{name}"):
        try:
            spec = importlib.util.find_spec(path)
        except ModuleNotFoundError:
            continue
        if spec is None:
            continue
        module = import_module(path)
        found = [
            value
            for _, value in inspect.getmembers(module, inspect.isclass)
            if value.__module__ == path and issubclass(value, BaseModel)
        ]
        return found[0] if len(found) == 1 else module.__main_model__
    raise RuntimeError(name)
