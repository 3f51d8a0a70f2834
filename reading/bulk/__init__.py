"""Crops by the million: sources are cut into parts, workers read them, and each part becomes one Parquet file."""
