"""Which pictures are read: files named on a command line, and labelled data sets."""
