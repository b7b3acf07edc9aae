"""The bench's own parts: what measures is measured, with little RAM."""
import os
import signal
import subprocess
import sys
import time

import lib

sys.path.insert(0, os.path.join(lib.TOP, "bench"))
import common       # noqa: E402
import machines     # noqa: E402
import smp          # noqa: E402
import snapshot     # noqa: E402

MIB = 1 << 20
MASK = 2**64 - 1


def need_qemu():
    if not common.QEMU:
        raise lib.Skip("qemu-system-x86_64 is not installed")


def filled(count, seed):
    """What the guest's fill must answer."""
    x, total = (seed * 0x9e3779b97f4a7c15 & MASK) | 1, 0
    for _ in range(count * MIB // 8):
        x ^= x << 13 & MASK
        x ^= x >> 7
        x ^= x << 17 & MASK
        total += x
    return str(total & MASK)


def small():
    return snapshot.Snapshots(common.Table(), pairs=1, sizes={"small": 64}, dirtied=4)


def table_says_what_holds():
    t = common.Table()
    t.add("a", "ms", [1, 9, 2], [59], limit=common.Limit("ratio", most=1 / 30))
    t.add("b", "ms", [6], [], limit=common.Limit("skep", most=5))
    t.add("c", "MiB/s", [], [4], "higher", limit=common.Limit("ratio", least=3))
    t.add("d", "ms", [1], [3])
    a, b, c, d = t.rows
    assert a["skep"] == 2 and a["ratio"] == 0.0339, a
    assert not a["met"] and a["limit"] == "ratio <= 1/30", a
    assert b["peer"] is None and b["ratio"] is None and b["met"] is False, b
    assert c["skep"] is None and c["met"] is None and c["limit"] == "ratio >= 3", c
    assert "met" not in d and d["better"] == "lower", d


def latencies_are_read():
    rows = [(3, 4000), (7, 900), (90, 80), (1234, 20)]
    text = "# Histogram\n" + "".join(f"{us:06} {n:06}\r\n" for us, n in rows)
    text += "# Total: 000005000\n# Min Latencies: 00003\n# Max Latencies: 23456\n"
    assert smp.latencies(text) == (3, 90, 23456), smp.latencies(text)
    try:
        smp.latencies(text.replace("004000", "000400"))
        raise AssertionError("most of the timers are missing")
    except common.Failed:
        pass


def guest_is_asked():
    """What answers and what ends are told apart."""
    with smp.Guest(["/bin/sh", "-c", "echo SERVE ready; while read -r l; do eval \"$l\"; echo SERVE done; done"]) as g:
        assert g.ask("echo $((6 * 7))").strip() == "42"
        try:
            g.ask("exit 3")
            raise AssertionError("it has ended")
        except common.Failed:
            pass


def bare_write_copies_a_sparse_file():
    a, b = (os.path.join(lib.scratch(), n) for n in ("sparse", "copy"))
    with open(a, "wb") as f:
        for at in (0, 8 * MIB, 9 * MIB + 12345):
            f.seek(at)
            f.write(os.urandom(70000))
        f.truncate(64 * MIB)
    parts = machines.extents(a)
    assert sum(len(data) for _, data in parts) < MIB, "holes were read"
    assert machines.bare_write(b, parts, 4096, True) > 0
    os.truncate(b, 64 * MIB)
    assert subprocess.run(["cmp", a, b]).returncode == 0
    assert os.stat(b).st_blocks == os.stat(a).st_blocks


def guest_does_what_it_is_told():
    with small() as s, s.skep(64) as m:
        assert m.sum == filled(s.dirtied, s.seed)
        assert m.walk(snapshot.FIRST, s.dirtied) == m.sum
        assert m.stamp(snapshot.FIRST, 1, 7) != m.sum
        assert m.walk(snapshot.FIRST, s.dirtied) != m.sum
        assert m.fill(snapshot.FIRST, s.dirtied, 1) == m.sum
        assert m.ask("what", "what?") == "0"
        m.ask(f"churn {snapshot.FIRST} 8 1", "churning")
        time.sleep(0.3)
        os.write(m.stdin, b"\n")
        assert int(m.console.reply(b"churned")) > 0
        m.reset()


def ticks_show_a_pause():
    with small() as s, s.skep(64, dirty=False) as m:
        m.console.first_tick()
        begin = time.monotonic()
        os.kill(m.pid, signal.SIGSTOP)
        time.sleep(0.25)
        os.kill(m.pid, signal.SIGCONT)
        end = time.monotonic()
        gap = m.longest_gap(begin, end)
        # A busy host adds to it, but nothing takes away from it.
        assert gap > 245, f"{gap} ms"


def qemu_comes_back():
    need_qemu()
    with small() as s:
        path = s.path("qemu")
        with s.qemu(64) as m:
            begin, end = m.save(path)
            gap = m.longest_gap(begin, end)
            assert gap >= (end - begin) * 900, f"it ran on: {gap} ms"
            m.save(s.path("qemu"), stopped=False)
            want = m.sum
        assert os.path.getsize(path) > s.dirtied * MIB
        with machines.Qemu.restore(path, 64, s.kernel, s.scratch) as m:
            tick, ready, again = s.restored(m, want)
            assert 0 < tick < ready and again > 0
        with machines.Qemu.restore(path, 64, s.kernel, s.scratch) as m:
            try:
                s.restored(m, "1")
            except common.Failed as e:
                assert "restored RAM" in str(e), e
            else:
                raise AssertionError("another sum was taken for the same")


def every_row_has_its_figures():
    """All parts, with little RAM: what is promised of the figures is not looked at here."""
    need_qemu()
    with small() as s:
        for s.part in snapshot.PARTS:
            getattr(s, s.part)()
        files = os.listdir(s.files)
    s.table.print()
    assert not s.failed, s.failed
    rows = {r["name"]: r for r in s.table.rows}
    assert len(rows) == len(s.table.rows), "two rows of one name"
    for name, r in rows.items():
        assert r["skep"] is not None and r["skep"] > 0, r
        assert ("/" not in name) or r["peer"], r
    for name in ("save-small", "idle-small", "restore-tick-small", "restore-set-small"):
        assert rows[name]["ratio"], rows[name]
    assert not [f for f in files if f.endswith(".snap") or f == "qemu"], files


def a_machine_that_fails_says_why():
    with small() as s:
        try:
            with machines.Skep.start(64, "/nonexistent", s.scratch) as m:
                m.ready()
        except common.Failed as e:
            assert "nonexistent" in str(e), e
        else:
            raise AssertionError("no error")


def room_is_looked_for_first():
    for memory, disk, what in ((1 << 40, 0, "of memory"), (0, 1 << 40, "free, and")):
        try:
            snapshot.check_room(lib.scratch(), memory, disk)
        except common.Failed as e:
            assert what in str(e), e
        else:
            raise AssertionError("a terabyte of MiB is there")
    snapshot.check_room(lib.scratch(), 1, 1)


def nothing_is_left_behind():
    with small() as s:
        places = s.files, s.scratch
        with open(s.path("file"), "w") as f:
            f.write("x")
    assert not any(os.path.exists(p) for p in places)


def a_part_that_fails_is_told():
    """A side that fails is not asked again; the others are, and the run ends with its name."""
    with small() as s:
        s.part, calls = "save", []

        def bad():
            calls.append(1)
            raise common.Failed("no")
        found = s.alternate(3, bad, lambda: {"x": [1]})
        assert found == {"x": [1, 1, 1]} and len(calls) == 1 and s.failed == ["save"], (found, calls)


def unknown_rows_are_refused():
    p = subprocess.run([os.path.join(lib.TOP, "bench/run"), "nonsense"], capture_output=True,
                       text=True, timeout=60)
    assert p.returncode == 1 and "'nonsense' is none of" in p.stderr and "restore" in p.stderr, p


lib.run(table_says_what_holds, latencies_are_read, guest_is_asked, bare_write_copies_a_sparse_file,
        guest_does_what_it_is_told, ticks_show_a_pause, qemu_comes_back, every_row_has_its_figures,
        a_machine_that_fails_says_why, room_is_looked_for_first, nothing_is_left_behind,
        a_part_that_fails_is_told, unknown_rows_are_refused)
