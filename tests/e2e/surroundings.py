"""What stands around the process may be broken: closed descriptors, readers that stopped, FIFOs."""
import fcntl
import os
import signal
import subprocess
import time

from lib import POWEROFF, SKEP, freestanding, run, scratch

F_SETPIPE_SZ = 1031


def fifo(name):
    path = os.path.join(scratch(), name)
    os.mkfifo(path)
    return path


def ended_by(p, number, timeout=10):
    try:
        got = p.wait(timeout)
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        raise AssertionError(f"signal {number} does not end it") from None
    assert got == -number, f"ended with {got} where signal {number} was due"


def closed_standard_output():
    # Without care the machine's RAM gets descriptor 1, and the console goes into it.
    p = subprocess.run([SKEP, "demo", "--run"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                       preexec_fn=lambda: os.close(1), timeout=20)
    assert p.returncode == 4 and b"standard output is closed" in p.stderr, p


def closed_standard_input_and_error():
    def close():
        os.close(0)
        os.close(2)

    state = os.path.join(scratch(), "state")
    p = subprocess.run([SKEP, "run", "-l", "com1,stdio", "-o", "clock.mode=virtual",
                        "-o", "clock.limit=2000000", "-o", "boot.demo=true",
                        "--dump-state", state, "closed"],
                       stdout=subprocess.PIPE, preexec_fn=close, timeout=20)
    assert p.returncode == 2, p
    with open(state, "rb") as f:
        assert f.read(8) == b"machine.", "the console or an error got into the state's file"


def stuck_reader_of_console_and_errors():
    """2>&1 into a pipe that nobody empties: two signals still end it."""
    r, w = os.pipe()
    fcntl.fcntl(w, F_SETPIPE_SZ, 4096)
    os.set_blocking(w, False)
    os.write(w, bytes(4096))
    os.set_blocking(w, True)
    p = subprocess.Popen([SKEP, "run", "-m", "16M", "-l", "com1,stdio", "--kernel",
                          freestanding("spin"), "stuck"],
                         stdin=subprocess.DEVNULL, stdout=w, stderr=w)
    os.close(w)
    time.sleep(1)
    p.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert p.poll() is None, "the first SIGTERM is only the power button"
    p.send_signal(signal.SIGTERM)
    try:
        assert p.wait(10) == POWEROFF, p.returncode
    except subprocess.TimeoutExpired:
        p.kill()
        p.wait()
        raise AssertionError("two SIGTERMs do not end it") from None
    finally:
        os.close(r)


def nohup():
    """A hang-up that whoever started us had ignored is no power button."""
    p = subprocess.Popen([SKEP, "run", "-m", "16M", "--kernel", freestanding("spin"), "nohup"],
                         stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    time.sleep(1)
    p.send_signal(signal.SIGHUP)
    p.send_signal(signal.SIGHUP)
    time.sleep(1)
    got = p.poll()
    p.kill()
    p.wait()
    assert got is None, "SIGHUP ended it"


def fifo_for_a_kernel():
    """Making the machine may wait for ever: one signal ends that."""
    p = subprocess.Popen([SKEP, "run", "-m", "16M", "--kernel", fifo("kernel"), "fifo"],
                         stderr=subprocess.DEVNULL)
    time.sleep(1)
    assert p.poll() is None
    p.send_signal(signal.SIGINT)
    ended_by(p, signal.SIGINT)


def fifo_for_the_state():
    p = subprocess.Popen([SKEP, "demo", "--run", "--dump-state", fifo("state-fifo")],
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    time.sleep(1)
    p.send_signal(signal.SIGTERM)
    ended_by(p, signal.SIGTERM)


def slow_reader_at_the_end():
    """The machine is over, its last words are not taken: the second signal ends that too."""
    state = fifo("slow")
    fd = os.open(state, os.O_RDWR)
    fcntl.fcntl(fd, F_SETPIPE_SZ, 4096)
    p = subprocess.Popen([SKEP, "run", "-l", "com1,null", "-o", "clock.mode=virtual",
                          "-o", "clock.limit=1000", "-o", "boot.demo=true",
                          "--dump-state", state, "slow"],
                         stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(2)
    assert p.poll() is None, "the state should wait for its reader"
    p.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert p.poll() is None, "the first signal does not cut the end short"
    p.send_signal(signal.SIGTERM)
    ended_by(p, signal.SIGTERM)
    os.close(fd)


run(closed_standard_output, closed_standard_input_and_error, stuck_reader_of_console_and_errors,
    nohup, fifo_for_a_kernel, fifo_for_the_state, slow_reader_at_the_end)
