# What is particular to a cluster: site.yaml becomes resources of the rules. Included after all rules.
import getpass
import subprocess

import snakemake_executor_plugin_slurm


def ask_for_site():
    """The site's account, partitions and GPU model, but for what the command line or the profile say of a rule."""
    workflow.global_resources["gpu"] = workflow.global_resources.get("gpu") or SITE.gpus
    for r in workflow.rules:
        asked = {"slurm_account": SITE.account, "slurm_partition": SITE.partition}
        if "gpu" in r.resources and r.resources["gpu"].value:
            partition = SITE.gpu_partition or SITE.partition
            asked |= {"slurm_partition": partition, "constraint": SITE.constraint, "qos": SITE.qos}
            asked |= {"gpu_model": SITE.gpu_model}
        for name, value in asked.items():
            if value is not None and name not in r.resources:
                r.resources[name] = value


def check_queue():
    """Jobs that a run left in the queue when it was killed would work on the same files as those of this run."""
    format_ = ["--noheader", "--format=%i %j %Z", f"--user={getpass.getuser()}"]
    try:
        queue = subprocess.run(["squeue", *format_], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return  # the executor says that there is no SLURM
    here = os.path.realpath(os.getcwd())
    jobs = [line.split(maxsplit=2) for line in queue.splitlines()]
    ours = [job for job, name, folder in jobs if name.startswith("revela_") and os.path.realpath(folder) == here]
    if ours:
        sys.exit(
            f"SLURM still has jobs of another run in {here}: wait until they have ended, or stop them: "
            f"scancel {' '.join(ours)}"
        )


def fail_when_preempted():
    """A job that SLURM has preempted and will not requeue has failed; the executor would wait for it for ever."""
    query = snakemake_executor_plugin_slurm.query_job_status

    async def query_job_status(command, logger):
        states, seconds = await query(command, logger)
        return states and {job: "FAILED" if state == "PREEMPTED" else state for job, state in states.items()}, seconds

    snakemake_executor_plugin_slurm.query_job_status = query_job_status


if SITE:
    ask_for_site()
    if not (ARGS.dryrun or ARGS.unlock):
        check_queue()
        fail_when_preempted()

if not workflow.is_main_process and "SLURM_JOB_ID" in os.environ:
    modules = load_or_exit(load_site, SITE_FILE).modules
    if modules:
        shell.prefix(f"module load {' '.join(modules)} && ")
