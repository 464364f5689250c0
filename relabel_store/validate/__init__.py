"""Checking a store against the format: rules, what they find, and the report."""
