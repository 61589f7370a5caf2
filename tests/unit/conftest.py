"""What every unit test shares: no generated example is judged by the time it took, since timing is for tests/bench."""

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
