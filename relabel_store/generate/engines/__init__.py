"""Engines: who calls ``label_part``."""
