"""The page of a smoke test, on the terminal too; fails where something is wrong."""

import json
import sys
from pathlib import Path

from revela.command.smoke import judge, page
from revela.files import atomic_write
from revela.study.specification import SmokeSpec

measured = Path(snakemake.input[0])
spec, found = SmokeSpec.model_validate(snakemake.params.spec), json.loads(measured.read_text(encoding="utf-8"))
faults = judge(spec, found)
text = page(spec, found, faults)
with atomic_write(snakemake.params.page) as partial:
    partial.write_text(text, encoding="utf-8")
print(text, file=sys.stderr)
Path(snakemake.log[0]).write_text(text, encoding="utf-8")
if faults:
    measured.unlink()  # so that the next time is measured anew
    sys.exit(1)
