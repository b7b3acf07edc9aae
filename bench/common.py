"""What every part of the bench shares: where things lie, what went wrong, the table of figures."""
import json
import os
import shutil
import statistics
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.join(TOP, "build")
BENCH = os.path.join(BUILD, "bench")
SKEP = os.environ.get("SKEP", os.path.join(BUILD, "skep"))
QEMU = shutil.which("qemu-system-x86_64")
PAIRS = int(os.environ.get("PAIRS", "3"))


class Failed(Exception):
    """A figure that cannot be taken, and why."""


def log(text):
    print(text, file=sys.stderr, flush=True)


class Limit:
    """What a row has to keep: of "skep" or "ratio", at most or at least a value."""

    def __init__(self, of, most=None, least=None, words=None):
        self.of, self.most, self.least, self.words = of, most, least, words

    def __str__(self):
        if self.words:
            return self.words

        def say(v):
            return f"1/{1 / v:g}" if 0 < v < 0.1 else f"{v:g}"
        what = "" if self.of == "skep" else "ratio "
        return what + (f"<= {say(self.most)}" if self.most is not None else f">= {say(self.least)}")

    def met(self, figures):
        """None where the figure is missing."""
        v = figures[self.of]
        if v is None:
            return None
        return v <= self.most if self.most is not None else v >= self.least


def faster(times):
    """A figure in seconds is to be so many times smaller than the peer's."""
    return Limit("ratio", most=1 / times, words=f"{times:g}x as fast")


class Table:
    def __init__(self):
        self.rows = []

    def add(self, name, unit, skep, peer, better="lower", digits=4, limit=None):
        """Medians of the two lists; an empty one is null."""
        s, p = (statistics.median(v) if v else None for v in (skep, peer))
        exact = {"skep": s, "peer": p, "ratio": s / p if s is not None and p else None}

        def rounded(key, n):
            return None if exact[key] is None else round(exact[key], n)
        row = {"name": name, "unit": unit, "skep": rounded("skep", digits),
               "peer": rounded("peer", digits), "ratio": rounded("ratio", 4), "better": better}
        if limit:
            row["limit"] = str(limit)
            row["met"] = limit.met(exact)
        self.rows.append(row)

    def print(self):
        def cell(v):
            return "-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v)
        print(f"{'':24}{'skep':>10}{'peer':>10}{'skep/peer':>12}  {'limit':<18}unit")
        for r in self.rows:
            limit = ""
            if "limit" in r:
                limit = r["limit"] + {True: " ok", False: " NO", None: " ?"}[r["met"]]
            print(f"{r['name']:24}{cell(r['skep']):>10}{cell(r['peer']):>10}"
                  f"{cell(r['ratio']):>12}  {limit:<18}{r['unit']}")

    def write(self, path):
        with open(path, "w") as f:
            json.dump(self.rows, f, indent=1)
            f.write("\n")
