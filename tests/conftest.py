"""Settings of every test."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples on every run and machine; a failing one is printed with the call that reproduces it. More
# examples, found at random, with: HYPOTHESIS_PROFILE=search scripts/test --only unit
settings.register_profile("fixed", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=1_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
