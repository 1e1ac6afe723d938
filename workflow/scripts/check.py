"""Prints how our numbers compare with the paper's, and fails if a measured value does."""

import sys
from pathlib import Path

from revela.paper.check import verdict_line

line, failing = verdict_line(snakemake.input[0])
Path(snakemake.log[0]).write_text(line + "\n")
print(line, file=sys.stderr)
sys.exit(int(failing))
