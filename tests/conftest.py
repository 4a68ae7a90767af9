"""Hypothesis profiles: a sample for every run, `long` for `make test-long`. No cache is used."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from devbc.cache import DISABLE

# Tests neither believe nor fill the cache of whoever runs them; those of the cache itself bring their own.
os.environ[DISABLE] = "1"

# Deadlines measure the machine and its load, not the code; examples are few enough without them.
settings.register_profile("short", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Half an hour of CPU time for all tests that follow the profile, a fifth of it for the slowest.
settings.register_profile(
    "long", deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("short")
