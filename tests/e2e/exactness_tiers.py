"""exactness.py across tiers: what one tier saves the other one goes on with, and saves alike."""
import exactness
from lib import LONG, run

exactness.DEBIAN_POINTS = 600 if LONG else 40
exactness.GUEST_POINTS = 100 if LONG else 5
WAYS = ("interpreter", "translator"), ("translator", "interpreter"), ("translator", "translator")


def crossed(case, way):
    def one():
        exactness.tiers.both = way
        exactness.tiers.need()
        case()
    one.__name__ = f"{case.__name__}_{way[0]}_{way[1]}"
    return one


run(*[crossed(case, way) for way in WAYS
      for case in (exactness.save_restore_save, exactness.freestanding, exactness.to_the_end,
                   exactness.debian_boot)])
