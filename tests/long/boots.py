"""A hundred boots of Debian's kernel in a row: none hangs."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lib import guest_test, run  # noqa: E402


def hundred_boots():
    for n in range(100):
        out = guest_test("cloud", "hello", timeout=120)
        assert "hello" in out, f"boot {n}: {out!r}"


run(hundred_boots)
