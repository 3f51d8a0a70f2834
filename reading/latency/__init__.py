"""How long networks and artifacts take, measured in turns, and what a network costs by its size alone."""
