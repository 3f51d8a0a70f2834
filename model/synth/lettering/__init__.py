"""Faces, what their glyphs look like, and flat lines of text drawn with them."""
