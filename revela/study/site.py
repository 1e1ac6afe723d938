"""What is particular to a cluster (`workflow/profiles/slurm/site.yaml`)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from revela.root import root
from revela.study.base import Strict, read_yaml, validate

SITE = root() / "workflow/profiles/slurm/site.yaml"


class Site(Strict):
    """What is particular to a cluster (`workflow/profiles/slurm/site.yaml`)."""

    account: str | None = Field(None, description="sbatch --account; null: SLURM's default.")
    partition: str | None = Field(None, description="Partition of jobs without GPU; null: SLURM's default.")
    gpu_partition: str | None = Field(None, description="Partition of GPU jobs; null: as the others.")
    constraint: str | None = Field(None, description="sbatch --constraint of GPU jobs.")
    qos: str | None = Field(None, description="sbatch --qos of GPU jobs.")
    gpu_model: str | None = Field("a100", description="As in `sinfo -o %G`: gpu:a100:4; null: any.")
    gpus: int = Field(16, ge=1, description="GPUs in use at a time, at most.")
    gpus_per_node: int = Field(4, ge=1, description="GPUs of a node, which training asks for at most on each.")
    max_runtime: int = Field(2880, ge=5, description="Longest time limit of a job, in minutes.")
    modules: list[str] = Field([], description="`module load` of these before each job's work.")
    price: float | None = Field(None, ge=0, description="Of a GPU-hour; null: the plan names no price.")
    currency: str = "EUR"

    def resources(self, *, gpu: bool) -> dict[str, str]:
        """What a job asks SLURM for on this site, as resources of Snakemake; what is null is left to SLURM."""
        asked = {"slurm_account": self.account, "slurm_partition": self.partition}
        if gpu:
            asked |= {"slurm_partition": self.gpu_partition or self.partition, "gpu_model": self.gpu_model}
            asked |= {"constraint": self.constraint, "qos": self.qos}
        return {name: value for name, value in asked.items() if value is not None}


def load_site(path: str | Path = SITE) -> Site:
    """What is particular to a cluster. Raises ConfigError with one line."""
    return validate(Site, read_yaml(path), str(path))
