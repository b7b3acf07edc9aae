"""Forty minutes of random programs by every way of the soft processor to run code."""
import os
import subprocess
import sys

top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.exit(subprocess.run([os.path.join(top, "build", "tests", "diff", "sequence"),
                         "--seconds", "2400"]).returncode)
