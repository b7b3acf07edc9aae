"""cpu.model=skep-v3.1: Debian with AVX, saved and restored, and the same in each tier."""
import os

from lib import (POWEROFF, PROMPT, SKEP, SUSPENDED, TIERS, Machine, Skip, command, guest_test, has_model,
                 linux, need_tier, run, scratch)

MODEL = ["-o", "cpu.model=skep-v3.1"]
FEATURES = {"avx", "avx2", "bmi1", "bmi2", "fma", "f16c", "abm", "movbe", "xsave"}


def path(name):
    return os.path.join(scratch(), name)


def need_model():
    if not has_model(MODEL):
        raise Skip("a processor with AVX2, BMI, FMA, F16C and LZCNT")


def flags(m):
    return set(m.command("grep -m1 ^flags /proc/cpuinfo").split(":", 1)[1].split())


def debian():
    """The kernel sees it all, and its programs (glibc chooses AVX2) work, before a restore and after."""
    need_model()
    snapshot = path("debian.skep")
    with linux("cloud", "quiet", *MODEL, name="avx") as m:
        m.expect(PROMPT, 200)
        assert FEATURES <= flags(m), f"missing: {FEATURES - flags(m)}"
        assert "AVX registers" in m.command("dmesg | grep x86/fpu")
        want = m.command("seq 1 20000 | md5sum")
        code, out = command("save", "--suspend", "avx", snapshot)
        assert code == 0, out
        m.exits(SUSPENDED, 60)
    with Machine(argv=[SKEP, "restore", snapshot]) as m:
        m.send("\n")
        m.expect(PROMPT, 60)
        assert FEATURES <= flags(m)
        assert m.command("seq 1 20000 | md5sum") == want
        m.send("poweroff\n")
        m.exits(POWEROFF, 60)


def default_has_none():
    """Without the key the model is the same on every host."""
    with linux("cloud", "quiet") as m:
        m.expect(PROMPT, 200)
        assert not flags(m) & {"avx", "avx2", "bmi1", "bmi2", "fma", "f16c", "abm"}


def tiers_agree():
    """The same seed ends in the same state, byte for byte, whoever runs the instructions."""
    need_model()
    ends = {}
    for tier in TIERS:
        need_tier(tier)
        state = path(tier)
        console = guest_test("cloud", "compute", *MODEL, "-o", f"soft.tier={tier}", "-o",
                             "clock.mode=virtual", "-o", "seed=5", "--dump-state", state, timeout=400)
        with open(state, "rb") as f:
            ends[tier] = console, f.read()
    first, second = ends.values()
    assert b"ymmh" in first[1], "the state has no YMM registers"
    assert first[0] == second[0], "the consoles differ"
    assert first[1] == second[1], "the states differ"


def refused():
    """A model that is none names those that are."""
    code, out = command("run", "-o", "cpu.model=skep-v9", "--kernel", "/nonexistent", "none")
    assert code == 4 and "skep-v2.1" in out and "skep-v3.1" in out, out


run(refused, default_has_none, debian, tiers_agree)
