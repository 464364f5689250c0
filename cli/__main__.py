"""``python -m relabel_store.cli``: the command without its script."""

from __future__ import annotations

from .main import main

main(prog_name="relabel-store")
