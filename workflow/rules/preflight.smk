# Before the first job, all that will be downloaded, and the models that are trained, are looked at. Included after all
# rules.


def check_downloads():
    """Ends the run, before anything is spent, with the faults of all that it would fetch from the hub."""
    wanted = {rule: set() for rule in ("dataset", "model")}
    for job in workflow.dag.needrun_jobs():
        if job.rule.name in wanted:
            wanted[job.rule.name].add(job.wildcards[job.rule.name])
    if any(wanted.values()):
        from revela.text.preflight import faults, look, needed_of

        needed = needed_of(STUDY, sorted(wanted["dataset"]), sorted(wanted["model"]))
        found = faults(look(needed, LAYOUT.root))
        if len(found) > 1:
            print(*found, sep="\n", file=sys.stderr)
            sys.exit(f"{len(found)} faults of {len(needed)} repositories of the hub, listed above; nothing was started")
        if found:
            sys.exit(found[0])


def check_models():
    """Ends the run, before anything is spent, where a model that is there does not go with the settings of a cell.

    `revela train` has examined the one cell of its studies before it wrote them.
    """
    cells = {job.wildcards.cell for job in workflow.dag.needrun_jobs() if job.rule.name == "train"}
    if cells and CONFIG.scale != "own":
        from revela.training.examination import examine_cell

        for cell in sorted(cells):
            load_or_exit(examine_cell, STUDY, Cell.parse(cell))


onstart:
    check_downloads()
    check_models()
