# Training: a cell is one folder, made by one job that can be stopped and goes on from its checkpoints.
rule replug_scores:
    input:
        batches=f"{R}/corpora/{{corpus}}/bs{{batch_size}}/batches.parquet",
        lm=f"{R}/resources/models/{{lm}}",
    output:
        f"{R}/corpora/{{corpus}}/bs{{batch_size}}/replug-{{lm}}-{{scoring}}.npy",
    log:
        f"{R}/logs/replug_scores/{{corpus}}/bs{{batch_size}}-{{lm}}-{{scoring}}.log",
    benchmark:
        f"{R}/benchmarks/replug_scores/{{corpus}}/bs{{batch_size}}-{{lm}}-{{scoring}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.evaluation_threads
    resources:
        nodes=1,
        gpu=CONFIG.compute.evaluation_gpus,
        mem_mb=memory("replug_scores"),
        runtime=runtime("replug_scores"),
    params:
        settings=replug_settings,
        code=method_code("revela.objectives.replug", "replug"),
    script:
        "../scripts/replug_scores.py"


rule train:
    input:
        unpack(cell_files),
    output:
        directory(f"{R}/models/{{cell}}"),
    log:
        f"{R}/logs/train/{{cell}}.log",
    benchmark:
        f"{R}/benchmarks/train/{{cell}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: CONFIG.compute.training_threads
    resources:
        nodes=1,
        gpu=CONFIG.compute.training_gpus,
        processes=CONFIG.compute.training_processes,
        mem_mb=memory("train"),
        runtime=runtime("train"),
    params:
        settings=lambda w: cell_settings(w.cell),
        code=lambda w: method_code("revela.training.loop", Cell.parse(w.cell).method),
    script:
        "../scripts/train.py"
