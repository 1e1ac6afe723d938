"""A clean copy of the project, in which the workflow is planned and run by the command that users type."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONTENT = ("Snakefile", "slurm", "workflow", "revela", "config", "tests/small")

# In the environment of every run; a test looks for them in all that a run wrote.
KEYS = ("HF_TOKEN", "OPENAI_API_KEY", "COHERE_API_KEY", "CO_API_KEY", "VOYAGE_API_KEY")
SECRETS = {name: f"planted-{number}-secret" for number, name in enumerate(KEYS)}


class Checkout:
    """A folder with all that the workflow needs, and no results."""

    def __init__(self, folder):
        self.folder = Path(folder)
        for name in CONTENT:
            source, target = ROOT / name, self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target, follow_symlinks=False)

    @classmethod
    def at(cls, folder):
        """The one that is in this folder already."""
        found = cls.__new__(cls)
        found.folder = Path(folder)
        return found

    def command(self, *arguments):
        return [sys.executable, "-m", "snakemake", *map(str, arguments)]

    @property
    def environment(self):
        return os.environ | SECRETS | {"PYTHONPATH": str(self.folder), "COLUMNS": "200"}

    def snakemake(self, *arguments, **options):
        """What the command printed, and its exit status."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **options,
        )
        return done.stdout, done.returncode

    def run_python(self, *arguments):
        """What a Python command printed that must succeed."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def plan(self, *arguments):
        """rule -> number of jobs of a dry run."""
        printed, status = self.snakemake("-n", *arguments)
        assert status == 0, printed
        stats = re.search(r"Job stats:\njob +count\n-[- ]+\n(.*?)\ntotal", printed, re.DOTALL)
        if not stats:
            assert "Nothing to be done" in printed, printed
            return {}
        return {name: int(count) for name, count in map(str.split, stats[1].splitlines())}

    def edit(self, file, old, new):
        """Replace a piece of a file, which must be there."""
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new, 1))
