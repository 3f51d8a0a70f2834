"""The protocols: each reads the requests of its paths, and words the answers and the errors."""
