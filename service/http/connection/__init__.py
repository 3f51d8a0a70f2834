"""One connection of the HTTP server, and what all connections share."""
