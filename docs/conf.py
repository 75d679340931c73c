"""Settings of the documentation's site, which `just docs` builds into build/docs/html."""

import os
import sys
from pathlib import Path

import torch_nano

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent / "python-plugin/examples")]
# For the notebooks, which run in processes of their own.
os.environ["PYTHONPATH"] = str(HERE.parent / "python-plugin/examples")
os.environ["OMP_NUM_THREADS"] = "1"

project = "torch-nano"
author = "the torch-nano authors"
release = version = torch_nano.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "api_pages",
    "registries",
    "repository_files",
]
exclude_patterns = ["extensions"]
default_role = "code"  # in docstrings, single backticks are code
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    # Of torch's modules, and of Python's own classes, their documentation is elsewhere.
    "inherited-members": (
        "Module, Dataset, BaseEstimator, ClassifierMixin, Callback, Exception, BaseException, object, tuple, "
        "str, int, Enum, Protocol"
    ),
}

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_timeout = 240
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

html_theme = "furo"
html_title = f"torch-nano {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"


def escape_bars(app, what, name, object, options, lines):
    """Docstrings write |x| for a norm, which reStructuredText takes for a substitution."""
    for index, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
        lines[index] = line if line.lstrip().startswith((">>>", "...")) else "`".join(parts)


def setup(app):
    app.connect("autodoc-process-docstring", escape_bars)
