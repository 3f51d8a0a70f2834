"""Front processes: N processes serve HTTP and decode, one process has the engines.

`pod.py` is the engine's side, `front_host.py` a front's; `wire.py`, `slots.py` and `board.py` are between them.
"""
