"""Interpreter and translator side by side for whole runs: a Debian boot, a session, each benchmark."""
import importlib.machinery
import importlib.util
import os
import subprocess
import sys

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(TOP, "tests", "e2e"))
sys.path.insert(0, os.path.join(TOP, "bench"))
import lib          # noqa: E402

TOOL = os.path.join(lib.BUILD, "tests", "lockstep", "lockstep")


def same(initrd, append, *args):
    p = subprocess.run([TOOL, "--quiet", "-m", "512M", "--kernel", lib.kernel("cloud"), "--initrd", initrd,
                        "--append", f"console=ttyS0 quiet {append}", *args],
                       capture_output=True, text=True, timeout=6 * 3600)
    if p.returncode == 77:
        raise lib.Skip(p.stdout.strip())
    if p.returncode:
        print(p.stdout, p.stderr[-500:])
    assert p.returncode == 0, f"{append}: the tiers differ, or could not run"
    print(f"# {append}: {p.stdout.strip()}", flush=True)


def debian_boot():
    """Looked at often: at every 20000 instructions, RAM at every 200000."""
    same(lib.initrd("cloud"), "skep.test=hello", "--step", "20000")


def debian_compute():
    same(lib.initrd("cloud"), "skep.test=compute")


def debian_compute_odd_steps():
    """Stops at other places, so that other blocks are cut short."""
    same(lib.initrd("cloud"), "skep.test=compute", "--step", "65537")


def benchmarks():
    loader = importlib.machinery.SourceFileLoader("bench_run", os.path.join(TOP, "bench", "run"))
    bench = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench_run", loader))
    loader.exec_module(bench)
    initrd = bench.prepare()[1]
    for name in bench.KERNELS:
        same(initrd, f"skep.test=bench skep.bench={name}", "--step", "1000000")


lib.run(debian_boot, debian_compute, debian_compute_odd_steps, benchmarks)
