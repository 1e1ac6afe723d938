# What is particular to a cluster: site.yaml becomes resources of the rules. Included after all rules.
import shutil
import subprocess

from revela.workflow import patch_slurm_executor


def check_overrides():
    """What is set for a rule that does not exist would be ignored without a word."""
    rules = [r.name for r in workflow.rules]
    for option, named in {"--set-resources": ARGS.set_resources, "--set-threads": ARGS.set_threads}.items():
        for name in named or {}:
            if name not in rules:
                sys.exit(f"{option} {name}: no such rule; valid: {', '.join(rules)}")


def ask_for_site():
    """The site's account, partitions and GPU model, unless the command line or the profile set them for a rule."""
    compute = CONFIG.compute
    if compute.training_gpus > compute.training_nodes * SITE.gpus_per_node:
        sys.exit(
            f"compute.training_gpus: {compute.training_gpus} GPUs on {compute.training_nodes} nodes, and a node of this "
            f"site has {SITE.gpus_per_node} (gpus_per_node in workflow/profiles/slurm/site.yaml); raise training_nodes"
        )
    workflow.global_resources.setdefault("gpu", SITE.gpus)
    for r in workflow.rules:
        asked = r.resources.get("gpu")  # a number, or a function where it follows from the job
        gpu = asked is not None and (asked.is_evaluable() or bool(asked.value))
        for name, value in SITE.resources(gpu=gpu).items():
            if name not in r.resources:
                r.resources[name] = value
        if r.name == "train":  # that its time is up is no failure
            r.restart_times = ARGS.retries + time_limits()


def ask_for_nodes(nodes):
    """A training over several nodes: one task on each, which the job's script starts itself, as one of MPI does."""
    gpus = CONFIG.compute.training_gpus // nodes
    extra = "--ntasks-per-node=1" + (f" --gpus-per-node={gpus}" if gpus else "")
    asked = {"mpi": "srun", "tasks": nodes, "tasks_per_gpu": 0, "slurm_extra": extra}
    for r in workflow.rules:
        if r.name == "train":
            for name, value in asked.items():
                r.resources[name] = value


def time_limits():
    """How many of the site's longest time limits the longest training fills."""
    longest = max((COSTS.of("train", {"cell": cell.path}).seconds for cell in CELLS), default=0)
    return int(longest / (60 * SITE.max_runtime))


def check_queue():
    """Jobs that a run left in the queue when it was killed would work on the same files as those of this run."""
    if not shutil.which("squeue"):
        sys.exit("--profile slurm: SLURM's commands are not on this machine; a dry run (-n) does without them")
    here = os.path.realpath(os.getcwd())
    command = ["squeue", "--noheader", "--format=%i|%u|%Z|%j"]
    queue = subprocess.run(command, capture_output=True, text=True, check=False)
    if queue.returncode:
        sys.exit(f"SLURM does not answer: {queue.stderr.strip().splitlines()[-1]}")
    jobs = [line.split("|", 3) for line in queue.stdout.splitlines()]
    left = {
        job: user for job, user, folder, name in jobs if name.startswith("revela_") and os.path.realpath(folder) == here
    }
    if left:
        sys.exit(
            f"SLURM still has jobs of another run in {here}, by {', '.join(sorted({*left.values()}))}: wait until they "
            f"have ended, or stop them: scancel {' '.join(left)}"
        )


if ARGS:
    check_overrides()

if CONFIG.compute.training_nodes > 1:
    ask_for_nodes(CONFIG.compute.training_nodes)

if SITE:
    ask_for_site()
    if not (ARGS.dryrun or ARGS.unlock):
        check_queue()
        patch_slurm_executor()

if not workflow.is_main_process and "SLURM_JOB_ID" in os.environ:
    modules = load_or_exit(load_site).modules
    if modules:  # `module` is a function of login shells, which /bin/sh between sbatch and here may have dropped
        shell.prefix(f"{{{{ command -v module || . /etc/profile; }}}} >/dev/null; module load {' '.join(modules)} && ")
