"""The kinds of places that images can lie in, one module each."""
