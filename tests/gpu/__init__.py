"""Where a GPU would run the graphs, asked without one."""
