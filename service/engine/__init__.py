"""The micro-batching engine: a pure queue, lanes that drain it, and the session they run.

The engine knows neither HTTP nor images: crops go in, token ids and confidences come out.
"""
