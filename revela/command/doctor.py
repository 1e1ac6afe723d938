"""What this machine has of what the project needs, and what to do about the rest. Nothing is changed or uploaded.

An error keeps `make tiny` from running. Anything that only some targets need, such as GPUs, the hub or SLURM, is a
warning.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from revela.errors import first_line
from revela.root import among_own_files, root
from revela.study.base import ConfigError
from revela.study.source import HubSource
from revela.study.study import PAPER, Study, load

GB = 2**30
DISK = 20  # GB that the demo and its environment take at most
INSTALL = "run `make setup`, or `pip install --upgrade revela` without a checkout"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what to do about it."""

    name: str
    status: Literal["ok", "warning", "error"]
    found: str
    advice: str = ""

    def json(self) -> dict[str, str]:
        return asdict(self)


def examine(config: str | Path | None = None, *, targets: Sequence[str] = (), network: bool = True) -> Iterator[Check]:
    """Check after check: Python, packages, torch, GPU, DeepSpeed, disk, configuration, hub, SLURM.

    Args:
        config: The study whose models are asked for on the hub; none: the paper's.
        targets: Ask for all that these need of the hub, models and datasets.
        network: Ask the hub at all.
    """
    yield from (python(), packages())
    torch = pytorch()
    yield torch
    if torch.status == "ok":
        yield gpu()
    yield from (deepspeed(), disk())
    with contextlib.nullcontext() if config else among_own_files():
        found = list(configuration(str(config or PAPER), targets, network=network))
    yield from found
    yield slurm()


def configuration(config: str, targets: Sequence[str], *, network: bool) -> Iterator[Check]:
    """Whether a study can be read, and what it needs of the hub."""
    try:
        study = load(config)
    except ConfigError as error:
        advice = "run in the project's folder, or name another by --configfile"
        yield Check("configuration", "error", str(error), advice)
        return
    yield Check("configuration", "ok", f"{config}: {len(study.runs)} cells, {len(study.tasks)} tasks")
    yield from downloads(study, config, targets) if targets and network else hub(study, network=network)


def python() -> Check:
    """Python 3.11 or newer."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - pip can be told to ignore what pyproject.toml requires
        return Check("Python", "error", version, "install Python 3.11 or newer: make PYTHON=python3.11 setup")
    return Check("Python", "ok", version)


def packages() -> Check:
    """The versions that constraints.txt pins; those that the package asks for where it was installed without a checkout."""
    pins = root() / "constraints.txt"
    if not pins.is_file():
        return required()
    pinned = dict(line.split("==") for line in pins.read_text().splitlines() if "==" in line and line[0] != "#")
    other = []
    for name, version in pinned.items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # one of another platform, or of an extra that was left out
        if installed.partition("+")[0] != version.strip():
            other.append(f"{name} {installed} instead of {version.strip()}")
    if other:
        return Check("packages", "warning", ", ".join(other[:5]), "run `make setup`; results may differ from ours")
    return Check("packages", "ok", f"as in constraints.txt ({len(pinned)})")


def required() -> Check:
    """The packages that this one asks for, without its extras."""
    from packaging.requirements import Requirement

    asked = [Requirement(line) for line in importlib.metadata.requires("revela") or []]
    asked = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = []
    for one in asked:
        try:
            installed = importlib.metadata.version(one.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(installed, prereleases=True):
            wrong.append(f"{one.name} {installed} instead of {one.specifier}")
    if wrong:
        return Check("packages", "error", ", ".join(wrong[:5]), INSTALL)
    return Check("packages", "ok", f"the {len(asked)} that revela {importlib.metadata.version('revela')} asks for")


def pytorch() -> Check:
    """Whether torch can be imported, and for which CUDA it was built."""
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - a broken installation fails in many ways
        return Check("torch", "error", _first_line(error), INSTALL)
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return Check("torch", "ok", f"{torch.__version__}, built for {built_for}")


def gpu() -> Check:
    """GPUs that torch sees."""
    import torch

    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return Check("GPU", "ok", ", ".join(f"{one.name} {one.total_memory / GB:.0f} GB" for one in found))
    if shutil.which("nvidia-smi"):
        advice = "the driver is older than torch's CUDA, or CUDA_VISIBLE_DEVICES hides the GPUs; see `nvidia-smi`"
        return Check("GPU", "warning", "nvidia-smi is there, but torch sees no GPU", advice)
    return Check("GPU", "warning", "none", "the demo and small backbones run on a CPU; the paper's cells need a GPU")


def deepspeed() -> Check:
    """Whether DeepSpeed can be imported."""
    try:
        import deepspeed
    except Exception as error:  # noqa: BLE001
        return Check("DeepSpeed", "error", _first_line(error), INSTALL)
    return Check("DeepSpeed", "ok", deepspeed.__version__)


def disk() -> Check:
    """Free space for results and for the hub's cache."""
    free = {name: shutil.disk_usage(_existing(place)).free / GB for name, place in _places().items()}
    found = ", ".join(f"{name}: {size:.0f} GB free" for name, size in free.items())
    if min(free.values()) < DISK:
        return Check(
            "disk", "warning", found, f"the demo takes up to {DISK} GB, the paper about 600 GB; HF_HOME moves the cache"
        )
    return Check("disk", "ok", found)


def _places() -> dict[str, Path]:
    from huggingface_hub.constants import HF_HOME

    return {"here": Path.cwd(), "hub cache": Path(HF_HOME)}


def _existing(path: Path) -> Path:
    return next(parent for parent in [path.absolute(), *path.absolute().parents] if parent.exists())


def hub(study: Study, *, network: bool) -> Iterator[Check]:
    """Whether there is a token for the hub, and whether it opens a study's gated models. The token itself is never shown."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError

    origins = [model.origin for model in study.models.values()]
    names = list(dict.fromkeys(origin.repository for origin in origins if isinstance(origin, HubSource)))
    if get_token():
        yield Check("hub token", "ok", "there is one")
    else:
        advice = "set HF_TOKEN or run `hf auth login`" if names else ""
        yield Check("hub token", "warning" if names else "ok", "none", advice)
    if not names:
        return
    if HF_HUB_OFFLINE or not network:
        yield Check("hub", "warning", "not asked: offline", "unset HF_HUB_OFFLINE to download models and datasets")
        return
    closed = []
    for name in names:
        try:
            HfApi().auth_check(name)
        except GatedRepoError:
            closed.append(name)
        except RepositoryNotFoundError:
            yield Check("hub", "warning", f"{name}: not there, or private", f"see https://huggingface.co/{name}")
        except (HTTPError, OSError) as error:
            reason = first_line(error)
            advice = "downloads need a network; `make tiny`, and models and data that are here already, need none"
            yield Check("hub", "warning", f"cannot be reached ({reason})", advice)
            return
    for name in closed:
        advice = f"accept its licence at https://huggingface.co/{name}, with the account of your token"
        yield Check("gated model", "warning", f"{name} is not open to you", advice)
    if not closed:
        yield Check("hub", "ok", f"all {len(names)} models are open to you")


def downloads(study: Study, config: str, targets: Sequence[str]) -> Iterator[Check]:
    """Whether all that targets still need of the hub can be had: the faults, each an error, or how much it is."""
    from revela.text.preflight import faults, look, needed_of
    from revela.workflow import dry_run

    try:
        jobs = dry_run(targets, config)
    except ConfigError as error:
        yield Check("targets", "error", str(error), "name targets as for snakemake")
        return
    names = {rule: sorted({job.wildcards[rule] for job in jobs if job.rule == rule}) for rule in ("dataset", "model")}
    needed = needed_of(study, names["dataset"], names["model"])
    seen = look(needed, study.layout.root)
    found = faults(seen)
    for fault in found:
        yield Check("download", "error", fault, "a run of these targets would end with this before its first job")
    if not found:
        size = sum(one.size for one in seen)
        yield Check("downloads", "ok", f"{len(needed)} repositories of the hub, {size / 1e9:.1f} GB to come")


def slurm() -> Check:
    """Whether jobs can be submitted from here."""
    if not shutil.which("sbatch"):
        return Check("SLURM", "ok", "none here; `--profile slurm` is for a cluster's login node")
    try:
        command = ["sinfo", "--noheader", "--format=%P %G"]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        advice = "see `scontrol ping`; without a controller, run without `--profile slurm`"
        return Check("SLURM", "warning", "installed, but `sinfo` gets no answer from its controller", advice)
    partitions = sorted(set(answer.split("\n")) - {""})
    site = "enter your account and partition in workflow/profiles/slurm/site.yaml"
    if not any("gpu" in line for line in partitions):
        return Check("SLURM", "warning", f"no partition with GPUs: {', '.join(partitions)}", site)
    return Check("SLURM", "ok", ", ".join(partitions), site)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
