"""Texts to draw: words, figures, random strings, and what a wide recipe draws besides."""
