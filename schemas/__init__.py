"""The JSON Schemas of the format and of the commands' JSON output, as package data."""
