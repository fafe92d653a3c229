"""Settings of the Sphinx documentation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from compressae_qdrant import __version__

project = "compressae-qdrant"
author = "The compressae-qdrant authors"
copyright = "The compressae-qdrant authors, Apache License 2.0"
version = release = __version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser", "reference_pages"]
exclude_patterns = ["_build"]
default_role = "literal"  # docstrings write code in single backticks
myst_heading_anchors = 3
smartquotes = False  # would turn the two dashes of an option into one

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_mock_imports = ["triton"]
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"compressae-qdrant {release}"
html_copy_source = False
