"""Traces by OpenTelemetry: which requests are traced, and how their spans are made and sent."""
