"""The networks, one folder for each kind. Adding a kind is adding a folder; nothing else in `model/` changes.

A folder holds `config.py` (torch-free), `network.py` and `training.py`, which give what `interface` asks for, and in its
`__init__.py` an entry for `registry` under the name `RECOGNISER`. What several kinds are made of is in `parts`.
"""
