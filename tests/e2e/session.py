"""A scripted session whose right answers are known."""
from lib import guest_test, run


def busybox_session():
    out = guest_test("cloud", "session", timeout=400)
    wrong = [line for line in out.splitlines() if line.startswith("wrong")]
    assert not wrong, "; ".join(wrong)
    right = sum(line.startswith("right") for line in out.splitlines())
    assert right >= 34, f"only {right} answers came"


run(busybox_session)
