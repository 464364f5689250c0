"""Layouts of others that labels are written in, a module each."""
