"""The paper's own plan in miniature: config/config.yaml and the imitation of the hub, on this machine.

    make rehearse [TARGET=results/tables/table1.tex]

Works in a folder with a copy of the checkout, whose results it keeps: a run that was killed goes on.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
from checkout import CONTENT, ROOT
from hub import TOKEN, Server, build

HERE = Path(__file__).parent
CELL = "revela/wiki/llama-3.2-1b/llama-3.2-1b/bs16"
BATCHES = [f"results/corpora/{corpus}-released/bs16/batches.parquet" for corpus in ("wiki", "code")]
# The second goes by what the first has left: all comparisons on one page.
ALL = [["all", "released", "ablations", "anchors_page", f"results/exports/{CELL}", *BATCHES], ["results/check.html"]]


def overlaid(config: dict, changes: dict) -> dict:
    """A configuration with the values of `changes` in the place of its own, which must be there or be optional."""
    found = dict(config)
    for key, value in changes.items():
        found[key] = overlaid(config[key], value) if isinstance(value, dict) else value
    return found


def configuration() -> dict:
    config, changes = (
        yaml.safe_load(path.read_text()) for path in (ROOT / "config/config.yaml", HERE / "overlay.yaml")
    )
    return overlaid(config, changes)


def prepare(folder: Path) -> Path:
    """The checkout to work in: a copy of this one, whose configuration is overlaid. Results in it stay."""
    checkout = folder / "checkout"
    for name in CONTENT:
        source, target = ROOT / name, checkout / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.unlink(missing_ok=True)
            shutil.copy(source, target, follow_symlinks=False)
        elif source.is_dir():
            shutil.rmtree(target, ignore_errors=True)  # with what is here no more
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    (checkout / "config/config.yaml").write_text(yaml.safe_dump(configuration(), sort_keys=False, width=1000))
    nltk = folder / "nltk_data/tokenizers/punkt_tab/english"
    nltk.mkdir(parents=True, exist_ok=True)
    parameters = {"abbrev_types.txt": "dr\nfig\n", "sent_starters.txt": "the\n", "collocations.tab": "a\tlevel\n"}
    for name, content in (parameters | {"ortho_context.tab": "ada\t14\n"}).items():
        (nltk / name).write_text(content)
    return checkout


def environment(folder: Path, address: str) -> dict[str, str]:
    """That of a user whose hub is the imitation."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return found | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder / "cache"),
        "HF_TOKEN": TOKEN,
        "NLTK_DATA": str(folder / "nltk_data"),
        "PYTHONPATH": str(folder / "checkout"),
        "OMP_NUM_THREADS": "1",
        "no_proxy": "*",
    }


class Warm:
    """An interpreter that forks for jobs, and the program that jobs are started with in its place."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.place = tempfile.TemporaryDirectory()  # a socket's path has 107 characters at most
        self.socket, self.program = Path(self.place.name, "socket"), folder / "python"
        warm = HERE / "warm.py"
        self.program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{warm}" run "{self.socket}" "$@"\n')
        self.program.chmod(0o755)
        self.process = subprocess.Popen([sys.executable, warm, "serve", self.socket], env=environment)
        while not self.socket.exists():
            if self.process.poll() is not None:
                sys.exit("rehearsal: the interpreter that forks did not start")
            time.sleep(0.05)

    def command(self) -> list[str]:
        """Snakemake, told that its own interpreter is that program."""
        start = f"import sys; sys.executable = {str(self.program)!r}; from snakemake.cli import main; main()"
        return [sys.executable, "-c", start]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.place.cleanup()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=ROOT / "build/rehearsal")
    parser.add_argument("--cores", default=str(len(os.sched_getaffinity(0))))
    parser.add_argument("--cold", action="store_true", help="start an interpreter for every job, as the workflow does")
    parser.add_argument("targets", nargs="*", help="of snakemake; none: all tables, figures, anchors and comparisons")
    options, others = parser.parse_known_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    held = (folder / "lock").open("w")  # by Snakemake, too, so that one that was left behind keeps others out
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"rehearsal: another one is at work in {folder}")
    checkout = prepare(folder)
    build(folder / "hub")
    with Server(folder / "hub") as server:
        variables = environment(folder, server.address)
        warm = None if options.cold else Warm(folder, variables)
        snakemake = warm.command() if warm else [sys.executable, "-m", "snakemake"]
        settings = ["--profile", "workflow/profiles/local", "--cores", options.cores, "--nolock", *others]
        try:
            for targets in [options.targets] if options.targets else ALL:
                command = [*snakemake, *targets, *settings]
                done = subprocess.run(command, cwd=checkout, env=variables, check=False, pass_fds=[held.fileno()])
                if done.returncode:
                    return done.returncode
            return 0
        finally:
            if warm:
                warm.stop()


if __name__ == "__main__":
    sys.exit(main())
