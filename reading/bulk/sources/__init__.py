"""Where crops come from: picture files, tables, tar archives, LMDB archives; local, or by URL with fsspec."""
