"""Labelled word crops: archives, folders and files of labels, and the stream of training batches."""
