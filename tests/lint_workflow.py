"""`snakemake --lint` of a configuration, without its rule that functions and rules stand in different files.

Here an input function stands beside the rule that uses it, where its reader looks for it.

    python tests/lint_workflow.py [--configfile FILE]
"""

import subprocess
import sys

TOLERATED = "* Mixed rules and functions in same snakefile"

command = [sys.executable, "-m", "snakemake", "--lint", *sys.argv[1:]]
done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
found = [line.strip() for line in done.stdout.splitlines() if line.startswith("    * ")]
others = [line for line in found if not line.startswith(TOLERATED)]
if others or (done.returncode and not found):
    sys.exit(done.stdout)
