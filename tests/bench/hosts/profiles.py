"""Where the time went, as text."""

import cProfile
import io
import pstats

LINES = 40


def text(profile: cProfile.Profile) -> str:
    """Return the functions that took most time by themselves."""
    out = io.StringIO()
    pstats.Stats(profile, stream=out).strip_dirs().sort_stats("tottime").print_stats(LINES)
    return out.getvalue()
