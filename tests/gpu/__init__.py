"""Checks for the owner of a GPU, and where a GPU would run the graphs, asked without one."""
