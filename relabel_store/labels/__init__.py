"""Array maths on label maps: NumPy only, no files."""
