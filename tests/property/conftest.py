"""How hard the property tests look: `HYPOTHESIS_PROFILE=thorough` for 10,000 examples of each; a quick look otherwise."""

import os

from hypothesis import Phase, settings

settings.register_profile("quick", max_examples=100, stateful_step_count=40, deadline=None)
settings.register_profile("thorough", max_examples=10_000, stateful_step_count=40, deadline=None)
# For mutations.py, which only asks whether a test fails.
settings.register_profile("unshrunk", max_examples=300, stateful_step_count=40, deadline=None, phases=[Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
