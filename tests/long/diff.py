"""An hour of random instructions on the soft processor and the host's own."""
import os
import subprocess
import sys

top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.exit(subprocess.run([os.path.join(top, "build", "tests", "diff", "diff"),
                         "--seconds", "3600"]).returncode)
