"""Says on the terminal how our numbers compare with the paper's, and fails if a measured one does."""

import sys
from pathlib import Path

from revela.paper.check import report

line, failing = report(snakemake.input[0])
Path(snakemake.log[0]).write_text(line + "\n")
print(line, file=sys.stderr)
sys.exit(int(failing))
