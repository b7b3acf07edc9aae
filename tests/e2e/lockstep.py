"""Interpreter and translator side by side: the same at every step, and the tool that says so works."""
import os
import re
import subprocess

from lib import BUILD, Skip, initrd, kernel, run

TOOL = os.path.join(BUILD, "tests", "lockstep", "lockstep")
GUESTS = ["smoke", "real", "task", "paging32", "fpu", "priv", "apic", "timers", "hpet", "exceptions", "paging",
          "smc", "strings", "exact", "torture", "pvclock", "hyperv"]
IDENTITY = {"pvclock": "kvm", "hyperv": "hyperv"}


def lockstep(*args, timeout=300):
    """Runs the tool; returns (exit code, what it says)."""
    p = subprocess.run([TOOL, "--quiet", *args], capture_output=True, text=True, timeout=timeout)
    if p.returncode == 77:
        raise Skip(p.stdout.strip())
    assert p.returncode in (0, 1), f"lockstep ended with {p.returncode}: {p.stderr[-500:]}"
    return p.returncode, p.stdout


def same(*args, timeout=300):
    code, out = lockstep(*args, timeout=timeout)
    if code:
        print(out)
    assert not code, "the tiers differ"
    print("# " + out.strip(), flush=True)


def guest(name):
    return ["-m", "256M", "-o", f"identity={IDENTITY.get(name, 'none')}",
            "--kernel", os.path.join(BUILD, "tests", "guests", name)]


def debian(append):
    return ["-m", "256M", "--kernel", kernel("cloud"), "--initrd", initrd("cloud"),
            "--append", f"console=ttyS0 quiet {append}"]


def finds_what_is_planted():
    """A fault on purpose is found at the very instruction, and in the very piece that it needs."""
    where = re.compile(r"smallest piece that makes a difference: (\d+) instructions?, from count (\d+) to (\d+)")
    for within in 1, 7:
        code, out = lockstep("--tier-b", "interpreter", *guest("exact"), "--plant", "1234567",
                             "--plant-within", str(within))
        assert code == 1, "a planted fault was not found"
        assert where.search(out).groups() == (str(within), str(1234567 - within), "1234567"), out
        assert re.search(r"cpu\.0\.dr\[2\] +A 0x0 +B 0x10", out), out
    code, out = lockstep("--tier-b", "interpreter", *guest("exact"), "--plant", "2000001",
                         "--plant-ram", "0x12345")
    assert code == 1 and "RAM page 0x12000: 1 bytes" in out and "from count 2000000 to 2000001" in out, out


def interpreter_with_itself():
    """What is no difference is not taken for one."""
    same("--tier-b", "interpreter", "--b-blocks", "5", "--b-forget", "1009", "--step", "1013",
         *guest("exceptions"))
    same("--tier-b", "interpreter", "--b-alone", "--step", "100003", *guest("smc"))


def guests():
    for name in GUESTS:
        same(*guest(name), "--step", "5000")
        same(*guest(name), "--step", "77777")


def debian_begins():
    same(*debian("skep.test=hello"), "--limit", "400000000")


run(finds_what_is_planted, interpreter_with_itself, guests, debian_begins)
