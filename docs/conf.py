"""How Sphinx builds these pages; it asks no network."""

from importlib.metadata import version as installed_version

project = "kornia_ditf"
author = "the kornia_ditf contributors"
copyright = author  # noqa: A001 - the name that Sphinx reads
release = version = installed_version("kornia-ditf")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "changelog.d"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Notebooks are executed with every build, each in its own folder; one that fails ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"
copybutton_exclude = ".linenos, .gp, .go"

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "kornia_ditf"
