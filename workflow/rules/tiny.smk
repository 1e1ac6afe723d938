# Tiny's backbones: how resources/backbones/ was made, and how anyone makes it again (`make backbone`).
PRETRAINING = "config/backbone.yaml"


rule tokenizer:
    input:
        chunks=LAYOUT.chunks("code"),
        config=PRETRAINING,
    output:
        directory(LAYOUT.tokenizer()),
    log:
        LAYOUT.log("tokenizer"),
    benchmark:
        LAYOUT.benchmark("tokenizer")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("tokenizer"),
        runtime=runtime("tokenizer"),
    message:
        "Training the tokenizer of tiny's language models"
    script:
        "../scripts/tokenizer.py"


rule backbone:
    input:
        chunks=LAYOUT.chunks("code"),
        held_out=LAYOUT.chunks("held-out"),
        tokenizer=LAYOUT.tokenizer(),
        config=PRETRAINING,
    output:
        directory(LAYOUT.backbone("{backbone}")),
    log:
        LAYOUT.log("backbone", "{backbone}"),
    benchmark:
        LAYOUT.benchmark("backbone", "{backbone}")
    wildcard_constraints:
        backbone=either(STUDY.backbones),
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.data_threads
    resources:
        mem_mb=memory("backbone"),
        runtime=180,
    message:
        "Pretraining {wildcards.backbone}"
    script:
        "../scripts/backbone.py"


rule backbones:
    input:
        [LAYOUT.backbone(name) for name in STUDY.backbones],
