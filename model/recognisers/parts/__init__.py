"""Parts that several networks have in common."""
