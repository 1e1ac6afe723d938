# The demo's backbones: how resources/backbones/ was made, and how anyone makes it again (`make backbone`).
PRETRAINING = "config/backbone.yaml"


rule tokenizer:
    input:
        chunks=f"{R}/corpora/code/chunks.parquet",
        config=PRETRAINING,
    output:
        directory(f"{R}/backbones/tokenizer"),
    log:
        f"{R}/logs/tokenizer.log",
    benchmark:
        f"{R}/benchmarks/tokenizer.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("tokenizer"),
        runtime=runtime("tokenizer"),
    script:
        "../scripts/tokenizer.py"


rule backbone:
    input:
        chunks=f"{R}/corpora/code/chunks.parquet",
        held_out=f"{R}/corpora/held-out/chunks.parquet",
        tokenizer=f"{R}/backbones/tokenizer",
        config=PRETRAINING,
    output:
        directory(f"{R}/backbones/{{backbone}}"),
    log:
        f"{R}/logs/backbone/{{backbone}}.log",
    benchmark:
        f"{R}/benchmarks/backbone/{{backbone}}.tsv"
    wildcard_constraints:
        backbone=_BACKBONE,
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.data_threads
    resources:
        mem_mb=memory("backbone"),
        runtime=180,
    script:
        "../scripts/backbone.py"


rule backbones:
    input:
        [f"{R}/backbones/{name}" for name in STUDY.backbones],
