"""Plans made in this process: the parsing and the graph of `snakemake -n`, without a new interpreter for each."""

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from pathlib import Path
from unittest import mock

from snakemake.cli import args_to_api, parse_args
from snakemake.workflow import Workflow

NOW = time.time()


class Plan:
    """The graph of jobs that some targets need."""

    def __init__(self, workflow):
        self.workflow, self.dag = workflow, workflow.dag
        self.jobs = list(self.dag.jobs)
        self._job_of = {str(file): job for job in self.jobs for file in job.output}
        self._job_of |= {job.rule.name: job for job in self.jobs if not job.output}

    def needed(self, *targets):
        """The jobs of targets of the plan, and all that they need."""
        found, waiting = set(), [self._job_of[target] for target in targets]
        while waiting:
            job = waiting.pop()
            if job not in found:
                found.add(job)
                waiting += self.dag.dependencies[job]
        return found

    def counts(self, *targets):
        """rule -> number of jobs that targets need."""
        return dict(Counter(job.rule.name for job in self.needed(*targets)))

    def to_run(self):
        """rule -> number of jobs that are not done."""
        return dict(Counter(job.rule.name for job in self.dag.needrun_jobs() if job.output))

    def finish(self, folder):
        """Pretend that every job was run: outputs stand there, empty, and Snakemake has noted how they were made."""
        with contextlib.chdir(folder):
            for job in self.jobs:
                for file in job.output:
                    stamp = Path(file, ".snakemake_timestamp") if file.is_directory else Path(file)
                    stamp.parent.mkdir(parents=True, exist_ok=True)
                    stamp.touch()
                    os.utime(stamp, (NOW, NOW))  # none is newer than another
            self.workflow.iocache.deactivate()

            async def note():
                for job in self.jobs:
                    await self.workflow.persistence.finished(job)

            asyncio.run(note())


def plan(folder, *targets, options=()):
    """The plan of targets by the Snakefile in a folder; a failure is an AssertionError."""
    plans = []

    def execute(workflow, executor_plugin, executor_settings, *_, **__):
        workflow._executor_plugin, workflow.executor_settings = executor_plugin, executor_settings
        settings = workflow.execution_settings
        workflow._prepare_dag(
            forceall=False,
            ignore_incomplete=False,
            lock_warn_only=True,
            nolock=True,
            shadow_prefix=settings.shadow_prefix,
        )
        workflow._build_dag()
        workflow.async_run(workflow.dag.postprocess(update_needrun=False, check_initial=True))
        plans.append(Plan(workflow))

    command = ["snakemake", "-n", *targets, *options, "--quiet", "all"]
    with contextlib.chdir(folder), mock.patch.object(sys, "argv", command):
        parser, arguments = parse_args(command[1:])
        with mock.patch.object(Workflow, "execute", execute):
            assert args_to_api(arguments, parser), f"no plan of {' '.join(command)}"
    return plans[0]
