"""Altered crops for training: of whole batches on the device, and of single crops where they are loaded."""
