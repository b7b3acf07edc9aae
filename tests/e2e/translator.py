"""The translator of a running machine, seen from outside: its memory, and what it says about itself."""
import json
import time

from lib import PROMPT, TIERS, Skip, command, has_model, linux, need_tier, run


def mappings(pid):
    """[(permissions, line)] of a process."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as f:
        return [(line.split()[1], line) for line in f]


def look(m):
    """No memory may be written and executed at once; True: code of ours is there to be run."""
    maps = mappings(m.p.pid)
    both = [line for p, line in maps if "w" in p and "x" in p]
    assert not both, f"both writable and executable: {both}"
    # What a program and its libraries bring along is private.
    return any("x" in p and "s" in p for p, _ in maps)


def boot(*args, seconds=1.0):
    """Looks all along a boot, and while programs run; says whether there was code."""
    looks = code = 0
    with linux("cloud", "quiet", *args, name="maps") as m:
        while PROMPT not in m.text:
            assert m.p.poll() is None, m.stderr()
            m._read(0.01)
            code += look(m)
            looks += 1
        m.expect(PROMPT, 1)
        m.send("while seq 1 2000 | md5sum; do :; done\n")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            m._read(0.01)
            code += look(m)
            looks += 1
    assert looks > 20, f"only {looks} looks"
    return code


def never_written_and_run():
    for tier in TIERS:
        need_tier(tier)
        code = boot("-o", f"soft.tier={tier}")
        assert (code > 0) == (tier == "translator"), f"{tier}: {code} looks found code"


def nor_with_avx():
    """The pieces that AVX runs by are code, too; and two processors have one each of all."""
    model = ["-o", "cpu.model=skep-v3.1"]
    if not has_model(model):
        raise Skip("a processor with AVX2, BMI, FMA, F16C and LZCNT")
    assert boot("-c", "2", *model) > 0


def counters():
    """What a machine at work says: blocks come, lose their room to others, and are left for reasons."""
    need_tier("translator")
    with linux("cloud", "quiet", "-o", "soft.tier=translator", name="counters") as m:
        m.expect(PROMPT, 200)
        m.command("seq 1 20000 | md5sum")
        code, out = command("stats", "--json", "counters")
        assert code == 0, out
        one = json.loads(out)["vcpus"][0]["translator"]
        # More than fits: the oldest of it has gone.
        assert one["code_bytes"] > 33 << 20 and one["evictions"] > 100, one
        for name in ("blocks", "loops", "groups", "links", "entries", "ns"):
            assert one[name] > 100, (name, one)
        for name in ("interpreter", "unknown", "request", "budget", "fault", "written"):
            assert one["exit_" + name] > 0 or name == "budget", (name, one)
        code, out = command("stats", "counters")
        assert code == 0 and all(w in out for w in ("evictions", "exit_written", "longest_ns")), out
        print(f"# translator: {one['blocks']} blocks, {one['ns'] / 1e6:.0f} ms, the longest "
              f"{one['longest_ns'] / 1e6:.2f} ms", flush=True)


run(never_written_and_run, nor_with_avx, counters)
