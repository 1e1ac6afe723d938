"""What one job costs: time, GPUs and cores, memory, download and disk."""

from __future__ import annotations

from dataclasses import dataclass

LIGHT = 5.0  # seconds of a job that reads and writes small files


@dataclass(frozen=True)
class Cost:
    """What one job costs."""

    seconds: float = LIGHT
    gpus: int = 0
    cores: int = 1
    operations: float = 0.0  # of matrix products
    download: float = 0.0  # GB
    disk: float = 0.0  # GB that stay
    memory: float = 2.0  # GB of the host

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.seconds / 3600

    @property
    def core_hours(self) -> float:
        """Of jobs without GPU."""
        return 0.0 if self.gpus else self.cores * self.seconds / 3600
