"""Programs that make code as they run, or watch others run, in Debian: the same with each tier.

luajit, node and java compile and throw away, perl and python interpret and take signals, gdb writes
breakpoints into what it runs.  Each runs in both tiers, which must print the same and be the same all along.
"""
import os
import subprocess
import sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tests", "e2e"))
import lib          # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
TOOL = os.path.join(lib.BUILD, "tests", "lockstep", "lockstep")
PROGRAMS = {
    "luajit": ("primes\t17984", "functions", "doubles", "strings"),
    "perl": ("perl ", "signals 0", "regex"),
    "python": ("python ", "functions", "big", "regex"),
    "gdb": ("rip ", "eflags", "exited normally"),
    "node": ("deoptimized -194547310 2000", "functions 7538637", "regex 1319", "doubles -0.900535066",
             "wasm 1626540144", "big 29405376725837147", "objects 10007 6"),
    "java": ("nulls 99700000", "calls 1.188E7", "map 1009 30", "sort -2147468934 1639632",
             "threads 80000"),
}
SETS = {"node": "node", "java": "java"}     # of scripts/fetch-programs; the others are of the first one
RAM = {"node": "1536M", "java": "2G"}


def initrd(name):
    """The initramfs with the program, each made once."""
    kind = SETS.get(name, "")
    path = os.path.join(lib.scratch(), f"programs-{kind}.gz")
    if not os.path.exists(path):
        lib.kernel("cloud")
        p = subprocess.run([os.path.join(TOP, "scripts/fetch-programs"), *filter(None, [kind])],
                           capture_output=True, text=True)
        if p.returncode:
            raise lib.Skip((p.stderr.strip().splitlines() or ["programs"])[-1])
        tree = os.path.join(lib.GUEST, "programs" + ("-" + kind if kind else ""))
        subprocess.run([os.path.join(TOP, "scripts/mkinitramfs"), path, "cloud", tree,
                        os.path.join(HERE, "tree")], check=True)
    return path


def output(name, tier):
    with lib.Machine("--kernel", lib.kernel("cloud"), "--initrd", initrd(name), "--append",
                     f"console=ttyS0 quiet skep.test={name}", "-o", f"soft.tier={tier}",
                     "-o", "clock.mode=virtual", "-o", "seed=3", ram=RAM.get(name, "1G")) as m:
        m.expect(f"skep: test {name} begins", 600)
        out = m.expect(f"skep: test {name} ended with ", 2400)
        code = m.expect("\n", 10).strip()
        m.exits(lib.POWEROFF, 60)
    assert code == "0", f"{name} ended with {code}: {out[-500:]}"
    return out.replace("\r", "")


def runs(name):
    def one():
        texts = {}
        for tier in lib.TIERS:
            try:
                lib.need_tier(tier)
            except lib.Skip as e:
                print(f"# {e}")
                continue
            texts[tier] = output(name, tier)
        for tier, text in texts.items():
            for want in PROGRAMS[name]:
                assert any(w in text for w in want.split("|")), f"{tier}: no {want!r} in {text[-800:]!r}"
        assert len(set(texts.values())) == 1, f"the tiers print different things: {texts}"
        print("# " + next(iter(texts.values())).strip()[:4000].replace("\n", "\n# "))
    one.__name__ = name
    return one


def lockstep(name):
    def one():
        p = subprocess.run([TOOL, "--quiet", "-m", RAM.get(name, "1G"), "--kernel", lib.kernel("cloud"),
                            "--initrd", initrd(name), "--append", f"console=ttyS0 quiet skep.test={name}"],
                           capture_output=True, text=True, timeout=2 * 3600)
        if p.returncode == 77:
            raise lib.Skip(p.stdout.strip())
        if p.returncode:
            print(p.stdout, p.stderr[-500:])
        assert p.returncode == 0, "the tiers differ, or could not run"
        print(f"# {p.stdout.strip()}")
    one.__name__ = f"{name}_lockstep"
    return one


lib.run(*[case for name in PROGRAMS for case in (runs(name), lockstep(name))])
