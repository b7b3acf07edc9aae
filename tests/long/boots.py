"""A hundred boots of Debian's kernel in a row, with each tier of the processor: none hangs."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lib import each_tier, guest_test, run  # noqa: E402


def hundred_boots(tier):
    for n in range(100):
        out = guest_test("cloud", "hello", "-o", f"soft.tier={tier}", timeout=120)
        assert "hello" in out, f"boot {n}: {out!r}"


run(*each_tier(hundred_boots))
