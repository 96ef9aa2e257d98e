"""Former import path of `kornia_ditf.study.define.parsing`."""

from kornia_ditf.study.define.parsing import parse_study, read_study

__all__ = ["parse_study", "read_study"]
