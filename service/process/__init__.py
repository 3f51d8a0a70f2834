"""The process: its cores, memory, files, signals and log lines."""
