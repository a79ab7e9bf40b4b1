"""Property tests draw the same examples each time, so that a failure is the change's own."""

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")
