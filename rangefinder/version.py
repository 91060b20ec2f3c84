"""The version of this checkout, as in pyproject.toml."""

__version__ = "0.1.0"
