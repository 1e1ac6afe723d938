# Corpora: documents -> chunks -> batches of chunks, and Contriever's pairs.
rule chunks:
    input:
        unpack(chunk_files),
    output:
        chunks=f"{R}/corpora/{{corpus}}/chunks.parquet",
        counts=f"{R}/corpora/{{corpus}}/chunks.json",
    log:
        f"{R}/logs/chunks/{{corpus}}.log",
    benchmark:
        f"{R}/benchmarks/chunks/{{corpus}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.data_threads
    resources:
        mem_mb=memory("chunks"),
        runtime=runtime("chunks"),
    params:
        sources=lambda w: chunk_settings(w.corpus),
        max_words=CONFIG.chunking.max_words,
        code=code("revela.text.corpora"),
    script:
        "../scripts/chunks.py"


rule batches:
    input:
        batch_files,
    output:
        batches=f"{R}/corpora/{{corpus}}/bs{{batch_size}}/batches.parquet",
        counts=f"{R}/corpora/{{corpus}}/bs{{batch_size}}/batches.json",
    log:
        f"{R}/logs/batches/{{corpus}}/bs{{batch_size}}.log",
    benchmark:
        f"{R}/benchmarks/batches/{{corpus}}/bs{{batch_size}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("batches"),
        runtime=runtime("batches"),
    params:
        corpus=lambda w: batch_settings(w.corpus),
        seed=CONFIG.seed,
        code=code("revela.text.corpora"),
    script:
        "../scripts/batches.py"


rule pairs:
    input:
        batches=f"{R}/corpora/{{corpus}}/bs{{batch_size}}/batches.parquet",
        punkt=f"{R}/resources/punkt",
    output:
        pairs=f"{R}/corpora/{{corpus}}/bs{{batch_size}}/pairs.parquet",
        counts=f"{R}/corpora/{{corpus}}/bs{{batch_size}}/pairs.json",
    log:
        f"{R}/logs/pairs/{{corpus}}/bs{{batch_size}}.log",
    benchmark:
        f"{R}/benchmarks/pairs/{{corpus}}/bs{{batch_size}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("pairs"),
        runtime=runtime("pairs"),
    params:
        pairs=lambda w: CONFIG.corpora[w.corpus].pairs,
        crop_ratio=lambda w: CONFIG.corpora[w.corpus].crop_ratio,
        seed=CONFIG.seed,
        code=code("revela.text.pairs"),
    script:
        "../scripts/pairs.py"


# How the corpus would come out with other numbers of documents in a group; beside what the paper counts, if it does.
rule group_sizes:
    input:
        lambda w: f"{R}/corpora/{chunked_as(w.corpus)}/chunks.parquet",
    output:
        f"{R}/corpora/{{corpus}}/group-sizes.json",
    log:
        f"{R}/logs/group_sizes/{{corpus}}.log",
    benchmark:
        f"{R}/benchmarks/group_sizes/{{corpus}}.tsv"
    wildcard_constraints:
        corpus=either(name for name, corpus in CONFIG.corpora.items() if corpus.sources),
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        corpus=lambda w: batch_settings(w.corpus),
        documents=lambda w: CONFIG.corpora[w.corpus].documents,
        seed=CONFIG.seed,
        code=code("revela.text.report"),
    script:
        "../scripts/group_sizes.py"


localrules:
    corpus_report,


rule corpus_report:
    input:
        unpack(report_files),
    output:
        json=f"{R}/corpora/{{corpus}}/report.json",
        pdf=f"{R}/figures/corpus-{{corpus}}.pdf",
        png=report(
            f"{R}/figures/corpus-{{corpus}}.png",
            caption="../report/corpus.rst",
            category="Corpora",
            labels={"corpus": "{corpus}"},
        ),
    log:
        f"{R}/logs/corpus_report/{{corpus}}.log",
    benchmark:
        f"{R}/benchmarks/corpus_report/{{corpus}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=[code("revela.text.report"), code("revela.paper.figures")],
    script:
        "../scripts/corpus_report.py"
