"""Repairing a store that was damaged after it was finished: exactly what is damaged, with the recorded settings."""
