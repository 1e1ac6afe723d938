# Regrouped corpora: the chunks of a corpus's batches -> embeddings -> neighbours -> other batches of the same chunks.
wildcard_constraints:
    neighbours=r"[1-9]\d*",
    threshold=r"\d+(\.\d+)?",


# A job that is killed goes on after its last shard.
rule chunk_embeddings:
    input:
        model=system_folders,
        batches=LAYOUT.batches("{corpus}", "{batch_size}"),
    output:
        LAYOUT.chunk_embeddings("{corpus}", "{batch_size}", "{system}"),
    log:
        LAYOUT.log("chunk_embeddings", "{corpus}", "bs{batch_size}", "{system}"),
    benchmark:
        LAYOUT.benchmark("chunk_embeddings", "{corpus}", "bs{batch_size}", "{system}")
    wildcard_constraints:
        system=DENSE,
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=gpus("chunk_embeddings"),
        mem_mb=memory("chunk_embeddings"),
        runtime=runtime("chunk_embeddings"),
    params:
        spec=specified(grouping.embedding_spec),
        compute=compute,
        results=results,
        code=lambda w: code(STUDY.system(w.system).module, "revela.grouping.embeddings"),
    message:
        "Embedding the chunks of {wildcards.corpus} with {wildcards.system}"
    script:
        "../scripts/chunk_embeddings.py"


rule neighbours:
    input:
        batches=LAYOUT.batches("{corpus}", "{batch_size}"),
        vectors=LAYOUT.chunk_embeddings("{corpus}", "{batch_size}", "{system}"),
    output:
        neighbours=LAYOUT.neighbours("{corpus}", "{batch_size}", "{system}", "{neighbours}"),
        counts=LAYOUT.neighbours("{corpus}", "{batch_size}", "{system}", "{neighbours}", "json"),
    log:
        LAYOUT.log("neighbours", "{corpus}", "bs{batch_size}", "{system}", "k{neighbours}"),
    benchmark:
        LAYOUT.benchmark("neighbours", "{corpus}", "bs{batch_size}", "{system}", "k{neighbours}")
    wildcard_constraints:
        system=DENSE,
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.data_threads
    resources:
        mem_mb=memory("neighbours"),
        runtime=runtime("neighbours"),
    params:
        spec=specified(grouping.neighbour_spec),
        code=code("revela.grouping.neighbours", "revela.grouping.regrouped"),
    message:
        "Finding {wildcards.neighbours} neighbours of each chunk of {wildcards.corpus} with {wildcards.system}"
    script:
        "../scripts/neighbours.py"


rule neighbours_bm25:
    input:
        LAYOUT.batches("{corpus}", "{batch_size}"),
    output:
        neighbours=LAYOUT.neighbours("{corpus}", "{batch_size}", "{system}", "{neighbours}"),
        counts=LAYOUT.neighbours("{corpus}", "{batch_size}", "{system}", "{neighbours}", "json"),
    log:
        LAYOUT.log("neighbours", "{corpus}", "bs{batch_size}", "{system}", "k{neighbours}"),
    benchmark:
        LAYOUT.benchmark("neighbours", "{corpus}", "bs{batch_size}", "{system}", "k{neighbours}")
    wildcard_constraints:
        system=either(BM25),
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("neighbours_bm25"),
        runtime=runtime("neighbours_bm25"),
    params:
        spec=specified(grouping.neighbour_spec),
        code=code("revela.grouping.bm25_neighbours", "revela.grouping.regrouped"),
    message:
        "Finding {wildcards.neighbours} neighbours of each chunk of {wildcards.corpus} with {wildcards.system}"
    script:
        "../scripts/neighbours_bm25.py"


rule near_duplicates:
    input:
        LAYOUT.batches("{corpus}", "{batch_size}"),
    output:
        LAYOUT.near_duplicates("{corpus}", "{batch_size}", "{threshold}"),
    log:
        LAYOUT.log("near_duplicates", "{corpus}", "bs{batch_size}-{threshold}"),
    benchmark:
        LAYOUT.benchmark("near_duplicates", "{corpus}", "bs{batch_size}-{threshold}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("near_duplicates"),
        runtime=runtime("near_duplicates"),
    params:
        spec=specified(grouping.near_duplicate_spec),
        code=code("revela.grouping.near_duplicates", "revela.grouping.chunks"),
    message:
        "Finding chunks of {wildcards.corpus} that are nearly the same"
    script:
        "../scripts/near_duplicates.py"


def regrouped_files(wildcards):
    """The batches whose chunks a corpus has, their neighbours, and which of them may not meet."""
    spec, size = CONFIG.corpora[wildcards.corpus].regroup, wildcards.batch_size
    files = {"batches": LAYOUT.batches(spec.corpus, size)}
    if STUDY.grouped_by(wildcards.corpus):
        files["neighbours"] = LAYOUT.neighbours(spec.corpus, size, spec.by, spec.neighbours)
        if spec.exclude_near_duplicates:
            files["alike"] = LAYOUT.near_duplicates(spec.corpus, size, spec.exclude_near_duplicates)
    return files


rule regroup:
    input:
        unpack(regrouped_files),
    output:
        batches=LAYOUT.batches("{corpus}", "{batch_size}"),
        counts=LAYOUT.batches("{corpus}", "{batch_size}", "json"),
    log:
        LAYOUT.log("regroup", "{corpus}", "bs{batch_size}"),
    benchmark:
        LAYOUT.benchmark("regroup", "{corpus}", "bs{batch_size}")
    wildcard_constraints:
        corpus=either(REGROUPED),
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("regroup"),
        runtime=runtime("regroup"),
    params:
        spec=specified(grouping.regroup_spec),
        code=code("revela.grouping.regrouped"),
    message:
        "Regrouping batches of {wildcards.batch_size} chunks into {wildcards.corpus}"
    script:
        "../scripts/regroup.py"


localrules:
    grouping_report,
    grouping_report_by,


def grouping_report_files(wildcards):
    """Batches before and after, and how near the neighbours are."""
    spec, size = CONFIG.corpora[wildcards.corpus].regroup, wildcards.batch_size
    files = {"before": LAYOUT.batches(spec.corpus, size), "after": LAYOUT.batches(wildcards.corpus, size)}
    if STUDY.grouped_by(wildcards.corpus):
        files["neighbours"] = LAYOUT.neighbours(spec.corpus, size, spec.by, spec.neighbours, "json")
    return files


rule grouping_report:
    input:
        unpack(grouping_report_files),
    output:
        json=LAYOUT.grouping("{corpus}", "{batch_size}"),
        md=report(
            LAYOUT.grouping("{corpus}", "{batch_size}", "md"),
            caption="../report/grouping.rst",
            category="Corpora",
            labels={"corpus": "{corpus}"},
        ),
    log:
        LAYOUT.log("grouping_report", "{corpus}", "bs{batch_size}"),
    benchmark:
        LAYOUT.benchmark("grouping_report", "{corpus}", "bs{batch_size}")
    wildcard_constraints:
        corpus=either(REGROUPED),
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        spec=specified(grouping.grouping_report_spec),
        code=code("revela.grouping.report"),
    message:
        "Comparing the batches of {wildcards.corpus} with those that they were made of"
    script:
        "../scripts/grouping_report.py"


# On request: what a cell's models make of the batches of a corpus, regrouped or not.
rule grouping_gain:
    input:
        batches=LAYOUT.batches("{corpus}", "{batch_size}"),
        cell=LAYOUT.cell("{cell}"),
        retriever=lambda w: LAYOUT.model(Cell.parse(w.cell).retriever),
        lm=lambda w: LAYOUT.model(Cell.parse(w.cell).lm),
    output:
        LAYOUT.grouping_gain("{corpus}", "{batch_size}", "{cell}"),
    log:
        LAYOUT.log("grouping_gain", "{corpus}", "bs{batch_size}", "{cell}"),
    benchmark:
        LAYOUT.benchmark("grouping_gain", "{corpus}", "bs{batch_size}", "{cell}")
    wildcard_constraints:
        cell=cell_pattern("revela"),
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=gpus("grouping_gain"),
        mem_mb=memory("grouping_gain"),
        runtime=runtime("grouping_gain"),
    params:
        spec=specified(grouping.gain_spec),
        code=code("revela.grouping.gain"),
    message:
        "Measuring what {wildcards.cell} makes of the batches of {wildcards.corpus}"
    script:
        "../scripts/grouping_gain.py"


def gain_files(wildcards):
    """What a cell's models make of the batches before and after."""
    corpora = (CONFIG.corpora[wildcards.corpus].regroup.corpus, wildcards.corpus)
    return [LAYOUT.grouping_gain(corpus, wildcards.batch_size, wildcards.cell) for corpus in corpora]


use rule grouping_report as grouping_report_by with:
    input:
        unpack(grouping_report_files),
        gains=gain_files,
    output:
        json=LAYOUT.grouping_by("{corpus}", "{batch_size}", "{cell}", "json"),
        md=report(
            LAYOUT.grouping_by("{corpus}", "{batch_size}", "{cell}", "md"),
            caption="../report/grouping.rst",
            category="Corpora",
            labels={"corpus": "{corpus}", "cell": "{cell}"},
        ),
    log:
        LAYOUT.log("grouping_report", "{corpus}", "bs{batch_size}", "{cell}"),
    benchmark:
        LAYOUT.benchmark("grouping_report", "{corpus}", "bs{batch_size}", "{cell}")
