# Training: a cell is one folder, made by one job that can be stopped and goes on from its checkpoints.
rule replug_scores:
    input:
        batches=LAYOUT.batches("{corpus}", "{batch_size}"),
        lm=LAYOUT.model("{lm}"),
    output:
        LAYOUT.replug_scores("{corpus}", "{batch_size}", "{lm}", "{scoring}"),
    log:
        LAYOUT.log("replug_scores", "{corpus}", "bs{batch_size}-{lm}-{scoring}"),
    benchmark:
        LAYOUT.benchmark("replug_scores", "{corpus}", "bs{batch_size}-{lm}-{scoring}")
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=CONFIG.compute.scorers,
        mem_mb=memory("replug_scores"),
        runtime=runtime("replug_scores"),
    params:
        spec=lambda w: specification.ReplugScoreSpec.parse(w.scoring).model_dump(mode="json"),
        code=code("revela.objectives.replug_scores"),
    message:
        "Scoring the batches of {wildcards.corpus} with the language model {wildcards.lm}, for REPLUG"
    script:
        "../scripts/replug_scores.py"


def training_files(wildcards):
    """What a cell is trained from, as its method needs it."""
    cell = Cell.parse(wildcards.cell)
    data = {"batches": LAYOUT.batches, "pairs": LAYOUT.pairs}[cell.needs.data]
    files = {"retriever": LAYOUT.model(cell.retriever), "data": data(cell.corpus, cell.batch_size)}
    if cell.needs.lm == "beside":
        files["lm"] = LAYOUT.model(cell.lm)
    if cell.needs.lm == "scores":
        scoring = specification.replug_score_spec(STUDY, cell).name
        files["scores"] = LAYOUT.replug_scores(cell.corpus, cell.batch_size, cell.lm, scoring)
    if start := STUDY.start_of(cell):
        files["start"] = LAYOUT.cell(start)
    return files


def start_code(cell):
    """The module that puts the weights of another cell into a cell's models, if it begins with them."""
    return ["revela.training.start"] if STUDY.start_of(Cell.parse(cell)) else []


def training_threads(wildcards):
    """As set; on the CPU of this machine, an evaluation has room beside it."""
    compute, cores = CONFIG.compute, workflow.resource_settings.cores
    if compute.training_gpus or not workflow.local_exec or cores is None:  # a report is made without cores
        return compute.training_threads
    beside = cores - compute.evaluation_threads
    return min(compute.training_threads, beside) if beside > 0 else compute.training_threads


rule train:
    input:
        unpack(training_files),
    output:
        directory(LAYOUT.cell("{cell}")),
    log:
        LAYOUT.log("train", "{cell}"),
    benchmark:
        LAYOUT.benchmark("train", "{cell}")
    priority: 1  # on one core or two nothing takes longer; what it waits for has the same
    conda:
        "../envs/revela.yaml"
    threads: training_threads
    resources:
        nodes=CONFIG.compute.training_nodes,
        gpu=CONFIG.compute.training_gpus,
        processes=CONFIG.compute.training_processes,
        mem_mb=memory("train"),
        runtime=runtime("train"),
    params:
        spec=specified(specification.training_spec),
        compute=compute,
        results=results,
        code=lambda w: code("revela.training.loop", Cell.parse(w.cell).needs.module, *start_code(w.cell)),
    message:
        "Training {wildcards.cell}"
    script:
        "../scripts/train.py"
