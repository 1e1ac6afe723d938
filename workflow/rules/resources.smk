# Resources: folders with a manifest, fetched from a hub or built on this machine.
from revela.text.own_files import content


localrules:
    dataset,
    model,
    punkt,


def dataset_params(wildcards):
    """The dataset's specification. Where it is a copy of the user's files, their hash as it is now is part of it."""
    name = wildcards.dataset
    spec = specification.dataset_spec(STUDY, name)
    found = content(spec.dataset, spec.results, LAYOUT.dataset(name))
    return spec.model_dump(mode="json", exclude={"content"}) | ({"content": found} if found else {})


rule dataset:
    output:
        directory(LAYOUT.dataset("{dataset}")),
    log:
        LAYOUT.log("dataset", "{dataset}"),
    benchmark:
        LAYOUT.benchmark("dataset", "{dataset}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("dataset"),
        runtime=runtime("dataset"),
    params:
        spec=dataset_params,
        code=lambda w: code("revela.text.embedded") if CONFIG.datasets[w.dataset].installed else None,
    message:
        "Fetching the dataset {wildcards.dataset}"
    script:
        "../scripts/dataset.py"


rule model:
    output:
        directory(LAYOUT.model("{model}")),
    log:
        LAYOUT.log("model", "{model}"),
    benchmark:
        LAYOUT.benchmark("model", "{model}")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("model"),
        runtime=runtime("model"),
    params:
        spec=specified(specification.model_spec),
    message:
        "Fetching the model {wildcards.model}"
    script:
        "../scripts/model.py"


rule punkt:
    input:
        [] if CONFIG.chunking.punkt == "nltk" else LAYOUT.dataset(CONFIG.chunking.punkt),
    output:
        directory(LAYOUT.punkt()),
    log:
        LAYOUT.log("punkt"),
    benchmark:
        LAYOUT.benchmark("punkt")
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("punkt"),
        runtime=runtime("punkt"),
    params:
        spec=specified(specification.punkt_spec),
        code=None if CONFIG.chunking.punkt == "nltk" else code("revela.text.punkt"),
    message:
        "Preparing Punkt, which finds sentences"
    script:
        "../scripts/punkt.py"
