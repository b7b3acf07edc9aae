"""Twenty minutes of make fuzz."""
import os
import subprocess
import sys

top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.exit(subprocess.run([os.path.join(top, "scripts", "fuzz"), "1200"]).returncode)
