"""Stores and samples, summed up for people."""
