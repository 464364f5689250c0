"""Images in row order, wherever they lie; a module for each kind of place."""
