"""clock.mode=virtual: two runs with the same seed end in the same state, byte for byte."""
import os

from lib import POWEROFF, PROMPT, guest_test, linux, run, scratch


def once(name, test, seed, *args):
    """Runs a guest's test; returns (console, state at the end)."""
    state = os.path.join(scratch(), name)
    out = guest_test("cloud", test, "-o", "clock.mode=virtual", "-o", f"seed={seed}",
                     "--dump-state", state, *args, timeout=400)
    with open(state, "rb") as f:
        return out, f.read()


def first_difference(a, b):
    for n, (x, y) in enumerate(zip(a.splitlines(), b.splitlines()), 1):
        if x != y:
            return f"line {n}: {x[:200]!r} and {y[:200]!r}"
    return f"lengths {len(a)} and {len(b)}"


def same_seed_same_state():
    out1, state1 = once("first", "compute", 42)
    out2, state2 = once("second", "compute", 42)
    assert out1 == out2, f"the consoles differ: {first_difference(out1, out2)}"
    assert len(state1) > 1000, "the state at the end is next to nothing"
    assert state1 == state2, f"the states differ: {first_difference(state1, state2)}"
    # Another seed is another machine: what /dev/urandom gave shows that the seed reaches it.
    out3, state3 = once("third", "compute", 43)
    assert out1 != out3 and state1 != state3, "the seed changes nothing"


def four_processors_by_either_tier():
    """Who runs when is a matter of instruction counts: neither the host nor the tier shows."""
    out1, state1 = once("fourth", "compute-smp", 42, "-c", "4", "-o", "soft.tier=interpreter")
    out2, state2 = once("fifth", "compute-smp", 42, "-c", "4", "-o", "soft.tier=translator")
    assert out1 == out2, f"the consoles differ: {first_difference(out1, out2)}"
    assert state1 == state2, f"the states differ: {first_difference(state1, state2)}"


def record_and_replay_of_three():
    """What was typed comes again at the same instruction of the same processor."""
    log, text, state = os.path.join(scratch(), "log"), [], []
    for key in "input.record", "input.replay":
        path = os.path.join(scratch(), key)
        with linux("cloud", "quiet", "-c", "3", "-o", "clock.mode=virtual", "-o", "seed=3", "-o", f"{key}={log}",
                   "--dump-state", path) as m:
            if key == "input.record":
                m.expect(PROMPT, 200)
                for _ in range(3):
                    m.command("(seq 300 | sort -rn | md5sum) & seq 200 | md5sum; wait")
                m.send("poweroff\n")
            m.exits(POWEROFF, 200)
            text.append(m.text)
        with open(path, "rb") as f:
            state.append(f.read())
    assert text[0] == text[1], f"the consoles differ: {first_difference(*text)}"
    assert state[0] == state[1], f"the states differ: {first_difference(*state)}"


run(same_seed_same_state, four_processors_by_either_tier, record_and_replay_of_three)
