"""The networks, one folder for each family."""
