# What is typed, and what is printed: a target that no rule makes is explained in one line, and so is a job that failed.
# Included after all rules.
import time

from revela.study import reason
from revela.workflow import IN_FULL


def check_targets():
    """Refuses unknown targets of the command line, and cells that cannot start from where they are told to."""
    rules = {r.name: r for r in workflow.rules}
    cells = re.compile(rf"({cell_pattern(*METHODS)})(?=/|\.\w+$|$)")
    for target in ARGS.targets if ARGS else []:
        path = os.path.normpath(target)
        if not (target in rules or os.path.exists(path) or any(r.is_producer(path) for r in rules.values())):
            sys.exit(f"{target}: not a target: {explain_target(path, rules)}")
        for found in cells.finditer(path):
            load_or_exit(STUDY.start_of, Cell.parse(found[1]))


def explain_target(target, rules):
    """Why no rule makes a target, and what would be valid."""
    if not target.startswith(f"{LAYOUT.root}/"):
        return f"this configuration's files stand under {LAYOUT.root}/, its rules are {', '.join(rules)}"
    kind, _, rest = target.removeprefix(f"{LAYOUT.root}/").partition("/")
    try:
        if kind in ("models", "exports"):
            STUDY.check_cell(Cell.parse(rest))
        elif kind == "scores":
            system, _, benchmark = rest.removesuffix(".json").rpartition("/")
            STUDY.system(system)
            STUDY.benchmark_tasks(benchmark)
        elif kind == "runs" and rest.count("/") > 1:
            system, benchmark, task = rest.removesuffix(".run.gz").rsplit("/", 2)
            STUDY.system(system)
            STUDY.task(benchmark, task)
    except RevelaError as error:
        return str(error)
    valid = {
        "tables": [LAYOUT.table(table, "tex") for table in CONFIG.tables],
        "figures": [LAYOUT.figure(figure, "pdf") for figure in CONFIG.figures],
        "resources": [LAYOUT.dataset(name) for name in CONFIG.datasets]
        + [LAYOUT.package(name) for name in CONFIG.packages],
        "corpora": [LAYOUT.batches(name, 16) for name in CONFIG.corpora],
    }
    if kind in valid:
        return f"valid: {', '.join(valid[kind])}"
    return f"no rule writes it under {LAYOUT.root}/{kind}; if it is another configuration's, add its --configfile"


check_targets()
STARTED = time.time() - 1  # by the clock of files, which lags behind


onerror:
    for said in reason.given(LAYOUT.log("**", "*"), STARTED):
        print(f"error: {said}", file=sys.stderr)


if IN_FULL in os.environ:  # a message stands in the place of a job's files
    for r in workflow.rules:
        r.message = None
