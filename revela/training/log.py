"""The log of a training run: JSON lines, TensorBoard, and on a terminal a progress bar."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

TENSORBOARD = "tensorboard"  # the folder beside the JSON lines


class Log:
    """The log of a run, kept by its first process.

    path: the JSON lines, which may hold steps already. TensorBoard's folder stands beside them and is made from them.
    steps: of the whole run.
    """

    def __init__(self, path: Path, steps: int):
        self.path, self.steps = path, steps
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        shutil.rmtree(path.with_name(TENSORBOARD), ignore_errors=True)
        self.board = SummaryWriter(path.with_name(TENSORBOARD))
        for record in records:
            self._draw(record)
        self.bar = tqdm(total=steps, initial=len(records), unit="step", disable=None)

    def write(self, record: dict[str, Any]) -> None:
        """Adds a step."""
        with self.path.open("a", encoding="utf-8") as file:
            print(json.dumps(record), file=file)
        self._draw(record)
        shown = {name: record[name] for name in ("loss", "same_document") if name in record}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
        if self.bar.disable and (record["step"] % max(1, self.steps // 10) == 0 or record["step"] == self.steps):
            print(f"step {record['step']}/{self.steps}: loss {record['loss']:.4f}", file=sys.stderr)

    def close(self) -> None:
        self.board.close()
        self.bar.close()

    def _draw(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name != "step":
                self.board.add_scalar(name, value, record["step"])
