"""Labels from one form into another."""
