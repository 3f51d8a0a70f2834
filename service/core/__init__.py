"""The model that is served: recognizer, runtime, watchdog, metrics."""
