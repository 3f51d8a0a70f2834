"""The protocols that are spoken: each reads requests of its paths, and words the answers and the errors."""
