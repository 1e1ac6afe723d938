"""Prints how our numbers compare with the paper's, or with anchors, and fails if one does, or if there are none."""

import sys
from pathlib import Path

from revela.paper.check import verdict_line

line, failing = verdict_line(snakemake.input[0])
Path(snakemake.log[0]).write_text(line + "\n")
print(line, file=sys.stderr)
sys.exit(int(failing))
