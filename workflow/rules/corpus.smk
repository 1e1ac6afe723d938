# Corpora: documents -> chunks -> batches of chunks, and Contriever's pairs.
def chunk_files(wildcards):
    """The text of a corpus, Punkt where words count, and the backbone whose tokens count."""
    files = {"datasets": [LAYOUT.dataset(source.dataset) for source in CONFIG.corpora[wildcards.corpus].sources]}
    if not CONFIG.chunking.max_tokens:
        files["punkt"] = LAYOUT.punkt()
    if CONFIG.chunking.tokenizer:
        files["tokenizer"] = LAYOUT.model(CONFIG.chunking.tokenizer)
    return files


rule chunks:
    input:
        unpack(chunk_files),
    output:
        chunks=LAYOUT.chunks("{corpus}"),
        counts=LAYOUT.chunks("{corpus}", "json"),
    log:
        LAYOUT.log("chunks", "{corpus}"),
    benchmark:
        LAYOUT.benchmark("chunks", "{corpus}")
    priority: 1
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.data_threads
    resources:
        mem_mb=memory("chunks"),
        runtime=runtime("chunks"),
    params:
        spec=specified(specification.chunk_spec),
        code=code("revela.text.chunks"),
    message:
        "Cutting the documents of {wildcards.corpus} into chunks of complete sentences"
    script:
        "../scripts/chunks.py"


def batch_files(wildcards):
    """What a corpus's batches are made of: ready batches, those of other corpora, or chunks."""
    corpus = CONFIG.corpora[wildcards.corpus]
    if corpus.ready:
        return [LAYOUT.dataset(corpus.ready)]
    if corpus.mix:
        return [LAYOUT.batches(part, wildcards.batch_size) for part in corpus.mix]
    return [LAYOUT.apart(wildcards.corpus) if corpus.apart_from else own_chunks(wildcards)]


def own_chunks(wildcards):
    """A corpus's chunks, which it may share with corpora that have the same sources."""
    return LAYOUT.chunks(specification.chunked_as(STUDY, wildcards.corpus))


def benchmark_folders(wildcards):
    return [LAYOUT.dataset(task.dataset) for task in specification.apart_spec(STUDY, wildcards.corpus).tasks]


# Documents that share text with a benchmark are left out of training.
rule apart:
    input:
        chunks=own_chunks,
        benchmarks=benchmark_folders,
    output:
        chunks=LAYOUT.apart("{corpus}"),
        report=LAYOUT.apart("{corpus}", "json"),
    log:
        LAYOUT.log("apart", "{corpus}"),
    benchmark:
        LAYOUT.benchmark("apart", "{corpus}")
    wildcard_constraints:
        corpus=either(name for name, corpus in CONFIG.corpora.items() if corpus.apart_from),
    priority: 1
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        spec=specified(specification.apart_spec),
        code=code("revela.text.apart", "revela.evaluation.tasks"),
    message:
        "Leaving out documents of {wildcards.corpus} that share text with benchmarks"
    script:
        "../scripts/apart.py"


rule batches:
    input:
        batch_files,
    output:
        batches=LAYOUT.batches("{corpus}", "{batch_size}"),
        counts=LAYOUT.batches("{corpus}", "{batch_size}", "json"),
    log:
        LAYOUT.log("batches", "{corpus}", "bs{batch_size}"),
    benchmark:
        LAYOUT.benchmark("batches", "{corpus}", "bs{batch_size}")
    wildcard_constraints:
        corpus=either(CONFIG.corpora.keys() - REGROUPED),
    priority: 1
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("batches"),
        runtime=runtime("batches"),
    params:
        spec=specified(specification.batch_spec),
        code=code("revela.text.batches"),
    message:
        "Making batches of {wildcards.batch_size} chunks of {wildcards.corpus}"
    script:
        "../scripts/batches.py"


rule pairs:
    input:
        batches=LAYOUT.batches("{corpus}", "{batch_size}"),
        punkt=LAYOUT.punkt(),
    output:
        pairs=LAYOUT.pairs("{corpus}", "{batch_size}"),
        counts=LAYOUT.pairs("{corpus}", "{batch_size}", "json"),
    log:
        LAYOUT.log("pairs", "{corpus}", "bs{batch_size}"),
    benchmark:
        LAYOUT.benchmark("pairs", "{corpus}", "bs{batch_size}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("pairs"),
        runtime=runtime("pairs"),
    params:
        spec=specified(specification.pair_spec),
        code=code("revela.text.pairs"),
    message:
        "Cutting Contriever's pairs from batches of {wildcards.corpus}"
    script:
        "../scripts/pairs.py"


# How the corpus would come out with other numbers of documents in a group, beside what the paper counts.
rule group_sizes:
    input:
        own_chunks,
    output:
        LAYOUT.group_sizes("{corpus}"),
    log:
        LAYOUT.log("group_sizes", "{corpus}"),
    benchmark:
        LAYOUT.benchmark("group_sizes", "{corpus}")
    wildcard_constraints:
        corpus=either(name for name, corpus in CONFIG.corpora.items() if corpus.sources),
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        spec=specified(specification.group_size_spec),
        code=code("revela.text.report"),
    message:
        "Counting the batches of {wildcards.corpus} for other numbers of documents in a group"
    script:
        "../scripts/group_sizes.py"


localrules:
    corpus_report,


def report_files(wildcards):
    """The counts that a corpus's report is made of: its batches of the sizes that the sheet has, and its chunks."""
    corpus = wildcards.corpus
    sizes = sorted({run.batch_size for run in STUDY.runs if run.corpus == corpus}) or [16]
    files = {"batches": [LAYOUT.batches(corpus, size, "json") for size in sizes]}
    spec = CONFIG.corpora[corpus]
    if spec.regroup:
        files["grouping"] = [LAYOUT.grouping(corpus, size) for size in sizes]
    if spec.sources and not spec.ready:
        files["chunks"] = LAYOUT.chunks(specification.chunked_as(STUDY, corpus), "json")
        if spec.documents:
            files["group_sizes"] = LAYOUT.group_sizes(corpus)
        if spec.apart_from:
            files["apart"] = LAYOUT.apart(corpus, "json")
    return files


rule corpus_report:
    input:
        unpack(report_files),
    output:
        LAYOUT.corpus_report("{corpus}"),
    log:
        LAYOUT.log("corpus_report", "{corpus}"),
    benchmark:
        LAYOUT.benchmark("corpus_report", "{corpus}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code("revela.text.report"),
    message:
        "Gathering the counts of {wildcards.corpus}"
    script:
        "../scripts/corpus_report.py"
