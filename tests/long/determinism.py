"""clock.mode=virtual through a whole session: long runs, several seeds and speeds, same ends."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from lib import guest_test, run, scratch  # noqa: E402


def end(name, test, *args):
    state = os.path.join(scratch(), name)
    out = guest_test("cloud", test, "-o", "clock.mode=virtual", "--dump-state", state, *args,
                     timeout=3000)
    with open(state, "rb") as f:
        return out, f.read()


def session_twice():
    args = ("-o", "seed=7")
    assert end("a", "session", *args) == end("b", "session", *args)


def many_seeds():
    for seed in range(1, 6):
        args = ("-o", f"seed={seed}")
        assert end("a", "compute", *args) == end("b", "compute", *args), f"seed {seed}"


def several_speeds():
    for ps in (300, 1000, 3700):
        args = ("-o", "seed=1", "-o", f"clock.insn_ps={ps}")
        assert end("a", "compute", *args) == end("b", "compute", *args), f"insn_ps {ps}"


run(session_twice, many_seeds, several_speeds)
