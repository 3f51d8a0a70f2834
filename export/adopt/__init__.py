"""Recognisers of others become artifacts: their graph as it is, between pixels before it and a text behind it."""
