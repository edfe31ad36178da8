"""Sphinx: Markdown by MyST, the furo theme, nothing fetched from outside."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "Lightkeep"
copyright = "2026, the Lightkeep developers"
release = version_of("lightkeep")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "Lightkeep"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#4b3fb5", "color-brand-content": "#4b3fb5"},
    "dark_css_variables": {"color-brand-primary": "#a9a1ff", "color-brand-content": "#a9a1ff"},
}
autodoc_typehints = "description"
