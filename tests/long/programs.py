"""Programs that make code as they run, or watch others run, in Debian: the same with each tier.

luajit compiles and throws away, perl and python interpret and take signals, gdb writes breakpoints
into what it runs.  Each runs in both tiers, which must print the same and be the same all along.
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
}


def initrd():
    """The initramfs with the programs, made once."""
    if not hasattr(initrd, "path"):
        lib.kernel("cloud")
        p = subprocess.run([os.path.join(TOP, "scripts/fetch-programs")], capture_output=True, text=True)
        if p.returncode:
            raise lib.Skip((p.stderr.strip().splitlines() or ["programs"])[-1])
        initrd.path = os.path.join(lib.scratch(), "programs.gz")
        subprocess.run([os.path.join(TOP, "scripts/mkinitramfs"), initrd.path, "cloud",
                        os.path.join(lib.GUEST, "programs"), os.path.join(HERE, "tree")], check=True)
    return initrd.path


def output(name, tier):
    with lib.Machine("--kernel", lib.kernel("cloud"), "--initrd", initrd(), "--append",
                     f"console=ttyS0 quiet skep.test={name}", "-o", f"soft.tier={tier}",
                     "-o", "clock.mode=virtual", "-o", "seed=3", ram="1G") as m:
        m.expect(f"skep: test {name} begins", 300)
        out = m.expect(f"skep: test {name} ended with ", 1200)
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
        print("# " + next(iter(texts.values())).strip().replace("\n", "\n# "))
    one.__name__ = name
    return one


def lockstep(name):
    def one():
        p = subprocess.run([TOOL, "--quiet", "-m", "1G", "--kernel", lib.kernel("cloud"), "--initrd",
                            initrd(), "--append", f"console=ttyS0 quiet skep.test={name}"],
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
