"""How a run ends, and the exit code that says so."""
import signal
import time

from lib import (HALT, POWEROFF, PROMPT, REBOOT, TRIPLE, Machine, freestanding, linux, run)


def guest(name, code, *args):
    with Machine("--kernel", freestanding(name), *args, ram="16M") as m:
        m.exits(code, 20)


def debug_exit():
    guest("exit", 33, "-o", "lpc.debug_exit=true")


def triple_fault():
    guest("triple", TRIPLE)


def triple_fault_as_reset():
    guest("triple", REBOOT, "-o", "x86.triple_fault=reset")


def halted():
    guest("halt", HALT)


def reset_by_cf9():
    guest("reset_cf9", REBOOT)


def reset_by_keyboard_controller():
    guest("reset_kbd", REBOOT)


def second_sigterm_stops():
    with Machine("--kernel", freestanding("spin"), ram="16M") as m:
        time.sleep(1)
        m.signal(signal.SIGTERM)
        time.sleep(1)
        assert m.p.poll() is None, "the first SIGTERM is only the power button"
        m.signal(signal.SIGTERM)
        m.exits(POWEROFF, 10)


def linux_test(name, code, append=""):
    with linux("cloud", f"quiet {append} skep.test={name}") as m:
        m.expect(f"skep: test {name} begins", 200)
        m.exits(code, 60)


def linux_reboot():
    linux_test("reboot", REBOOT)


def linux_reboot_by_triple_fault():
    linux_test("reboot", TRIPLE, "reboot=t")


def linux_panic_reboots():
    linux_test("panic", REBOOT, "panic=-1")


def linux_halt():
    linux_test("halt", HALT)


def sigterm_presses_the_power_button():
    with linux("cloud", "quiet") as m:
        m.expect(PROMPT, 200)
        # acpid starts beside the shell.
        m.command("while ! pidof acpid >/dev/null; do sleep 1; done; sleep 1")
        m.signal(signal.SIGTERM)
        m.expect("skep: power button", 60)
        m.exits(POWEROFF, 60)


run(debug_exit, triple_fault, triple_fault_as_reset, halted, reset_by_cf9,
    reset_by_keyboard_controller, second_sigterm_stops, linux_reboot,
    linux_reboot_by_triple_fault, linux_panic_reboots, linux_halt,
    sigterm_presses_the_power_button)
