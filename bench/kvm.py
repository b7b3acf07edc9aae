"""Rows of backend=kvm: how soon a guest runs, beside QEMU -accel kvm with the same guest.

Four processors and 1 GiB on both sides.  kvm_create is taken inside one process, from vm_create to
the first entry into the guest; the others count from the start of the process.  Where the host's KVM cannot
run QEMU's firmware, there is no peer.
"""
import json
import os
import shutil
import subprocess
import tempfile
import time

from common import BENCH, BUILD, Failed, Limit, QEMU, SKEP, TOP

PARTS = ["kvm_create", "kvm_first_instruction", "kvm_restore"]
TIMES = 21
SIZE = ["-c", "4", "-m", "1G", "-o", "backend=kvm", "-o", "cpu.model=skep-v1.1"]
COUNTER = os.path.join(BUILD, "tests/guests/counter")


def exit_guest():
    guest = os.path.join(BENCH, "exit.elf")
    os.makedirs(BENCH, exist_ok=True)
    subprocess.run(["scripts/build-guest", "-m", "32", "-o", guest, "tests/e2e/guests/exit.S"],
                   check=True, cwd=TOP)
    return guest


def create(table):
    out = subprocess.run([os.path.join(BUILD, "tests/kvm_start"), exit_guest(), "51"],
                         capture_output=True, text=True, timeout=120)
    if out.returncode:
        raise Failed("kvm_start: " + out.stderr.strip())
    table.add("kvm_create", "us, vm_create to the first instruction", [float(out.stdout.split()[1])], [],
              digits=1, limit=Limit("skep", most=1000))


def timed(argv, code):
    begin = time.monotonic()
    try:
        got = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=10).returncode
    except subprocess.TimeoutExpired:
        return None
    return (time.monotonic() - begin) * 1000 if got == code else None


def first_instruction(table):
    guest, ours, theirs = exit_guest(), [], []
    mine = [SKEP, "run", *SIZE, "-o", "control=none", "-o", "lpc.debug_exit=true", "--kernel", guest, "b"]
    peer = [QEMU or "", "-accel", "kvm", "-machine", "q35", "-smp", "4", "-m", "1G", "-display", "none",
            "-monitor", "none", "-serial", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4",
            "-kernel", guest]
    for n in range(TIMES):
        took = timed(mine, 33)
        if took is None:
            raise Failed("kvm_first_instruction: the guest does not end")
        ours.append(took)
        if QEMU and n % 4 == 0 and (n == 0 or theirs):
            took = timed(peer, 33)
            theirs += [took] if took is not None else []
    table.add("kvm_first_instruction", "ms, process start to exit", ours, theirs, digits=2)


def wait_for(condition, what):
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            raise Failed("kvm_restore: " + what)
        time.sleep(0.02)


def restore(table):
    scratch = tempfile.mkdtemp(prefix="skep-bench-")
    env = dict(os.environ, SKEP_RUNTIME_DIR=os.path.join(scratch, "run"))
    console, file = os.path.join(scratch, "console"), os.path.join(scratch, "k.skep")
    stats, took = os.path.join(scratch, "stats"), []
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL,
             "env": env}
    p = None

    def control(*args):
        subprocess.run([SKEP, *args], timeout=30, check=True, **quiet)
    try:
        p = subprocess.Popen([SKEP, "run", *SIZE, "-l", f"com1,{console}", "--kernel", COUNTER, "k"], **quiet)
        wait_for(lambda: os.path.exists(console) and os.path.getsize(console) > 50, "the guest is silent")
        control("save", "--suspend", "k", file)
        p.wait(30)
        for _ in range(TIMES):
            size = os.path.getsize(console)
            p = subprocess.Popen([SKEP, "restore", "-o", "backend=kvm", "--stats", stats, file], **quiet)
            wait_for(lambda: os.path.getsize(console) > size, "the restored guest is silent")
            control("stop", "--force", "k")
            p.wait(30)
            with open(stats) as f:
                took.append(json.load(f)["first_insn_us"] / 1000)
    finally:
        if p and p.poll() is None:
            p.kill()
            p.wait()
        shutil.rmtree(scratch, ignore_errors=True)
    table.add("kvm_restore", "ms, process start to the first instruction", took, [], digits=2,
              limit=Limit("skep", most=5))


def take(table, names):
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Failed("there is no /dev/kvm, or it may not be opened: no figures of backend=kvm")
    for name, part in zip(PARTS, (create, first_instruction, restore)):
        if name in names:
            part(table)
