"""How wheels and releases are built. Not part of what is installed."""
