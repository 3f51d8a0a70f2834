"""The full golden set is tested where it lies beside the project; elsewhere its tests do not exist."""

from tests.golden.goldens import FULL

collect_ignore_glob = [] if FULL.is_dir() else ["test_full_set*.py"]
