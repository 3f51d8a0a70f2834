"""What an artifact must pass before it is written: it reads as PyTorch does."""
