"""Turns recognisers that others have exported into artifacts: their graph stays as it is, and pixels and text are added."""
