"""Scores of readings against labels, and how they are reported."""
