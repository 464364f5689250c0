"""The version of the package, from its installed metadata."""

from __future__ import annotations

from importlib.metadata import version

__version__ = version("relabel-store")
