"""How Sphinx builds these pages; it asks no network."""

from importlib.metadata import version as installed_version

project = "kornia_ditf"
author = "the kornia_ditf contributors"
copyright = author  # noqa: A001 - the name that Sphinx reads
release = version = installed_version("kornia-ditf")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "changelog.d"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "kornia_ditf"
