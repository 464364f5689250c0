"""Label maps as streams of small integers that compress well, and back: what the encoding ``packed`` compresses."""
