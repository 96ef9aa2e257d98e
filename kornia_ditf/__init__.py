"""Diffusion Transformers as dense descriptors and matchers for Kornia and OpenCV.

The public names are declared in `__init__.pyi`. Each is imported when it is first used, so
`import kornia_ditf` loads no model library.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
