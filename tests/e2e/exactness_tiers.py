"""exactness.py across tiers: what one tier saves the other one goes on with, and saves alike."""
import exactness
from lib import LONG, run

exactness.DEBIAN_POINTS = 600 if LONG else 15
exactness.GUEST_POINTS = 100 if LONG else 3
THERE, BACK = ("interpreter", "translator"), ("translator", "interpreter")
CASES = (exactness.save_restore_save, exactness.freestanding, exactness.to_the_end,
         exactness.debian_boot)


def crossed(case, way):
    def one():
        exactness.tiers.both = way
        exactness.tiers.need()
        case()
    one.__name__ = f"{case.__name__}_{way[0]}_{way[1]}"
    return one


if LONG:
    run(*[crossed(case, way) for way in (THERE, BACK, ("translator", "translator"))
          for case in CASES])
else:
    # Each case one way, and what is quick and the most telling both ways.
    run(*[crossed(case, THERE) for case in CASES[:3]], crossed(exactness.freestanding, BACK),
        crossed(exactness.debian_boot, BACK))
