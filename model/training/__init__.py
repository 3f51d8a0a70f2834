"""Training: the job `parseq-train`, the search `parseq-tune`, and what a run is made of."""
