# Resources: folders with a manifest, fetched from a hub or built on this machine.
localrules:
    dataset,
    model,
    punkt,


rule dataset:
    output:
        directory(f"{R}/resources/datasets/{{dataset}}"),
    log:
        f"{R}/logs/dataset/{{dataset}}.log",
    benchmark:
        f"{R}/benchmarks/dataset/{{dataset}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("dataset"),
        runtime=runtime("dataset"),
    params:
        dataset=lambda w: CONFIG.datasets[w.dataset].model_dump(mode="json", exclude_defaults=True),
        code=lambda w: code("revela.text.embedded") if CONFIG.datasets[w.dataset].installed else None,
    script:
        "../scripts/dataset.py"


rule model:
    output:
        directory(f"{R}/resources/models/{{model}}"),
    log:
        f"{R}/logs/model/{{model}}.log",
    benchmark:
        f"{R}/benchmarks/model/{{model}}.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("model"),
        runtime=runtime("model"),
    params:
        model=lambda w: STUDY.models[w.model].model_dump(mode="json", include={"scale", "name", "kind", "source"}),
    script:
        "../scripts/model.py"


rule punkt:
    input:
        [] if CONFIG.chunking.punkt == "nltk" else f"{R}/resources/datasets/{CONFIG.chunking.punkt}",
    output:
        directory(f"{R}/resources/punkt"),
    log:
        f"{R}/logs/punkt.log",
    benchmark:
        f"{R}/benchmarks/punkt.tsv"
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("punkt"),
        runtime=runtime("punkt"),
    params:
        source=punkt_source(),
        code=None if CONFIG.chunking.punkt == "nltk" else [code("revela.text.resources"), code("revela.text.documents")],
    script:
        "../scripts/punkt.py"
