"""Pretrain one of tiny's backbones, data-parallel over the job's threads."""

import os
import subprocess
import sys

from job import job

with job(snakemake):
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={snakemake.threads}"),
        *("-m", "revela.tiny.pretraining", "--model", snakemake.wildcards.backbone, "--config", snakemake.input.config),
        *("--chunks", snakemake.input.chunks, "--held-out", snakemake.input.held_out),
        *("--tokenizer", snakemake.input.tokenizer, "--output", snakemake.output[0]),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    sys.exit(subprocess.run(command, env=environment, check=False).returncode)
