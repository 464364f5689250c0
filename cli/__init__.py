"""The ``relabel-store`` command."""
