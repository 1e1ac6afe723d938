# Resources: folders with a manifest, fetched from a hub or built on this machine.
from revela.study.source import PackageSource, PathSource
from revela.text.own_files import content, model_content


localrules:
    package,
    dataset,
    model,
    punkt,


rule package:
    output:
        directory(LAYOUT.package("{package}")),
    log:
        LAYOUT.log("package", "{package}"),
    benchmark:
        LAYOUT.benchmark("package", "{package}")
    priority: 1
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        spec=specified(specification.package_spec),
    message:
        "Downloading {wildcards.package} from the package index"
    script:
        "../scripts/package.py"


def package_of(name):
    """The package's files that a dataset or a model is made of; nothing for others."""
    return {"package": LAYOUT.package(name)} if name else {}


def dataset_code(wildcards):
    """What makes text here; what is copied is verified by its manifest."""
    dataset = CONFIG.datasets[wildcards.dataset]
    if dataset.held_out_of:
        return code("revela.text.held_out")
    if dataset.installed:
        return code("revela.text.embedded")
    return code("revela.text.recipes") if dataset.recipe != "copy" else None


def dataset_files(wildcards):
    """What a dataset is made of, besides the place that its files come from."""
    dataset = CONFIG.datasets[wildcards.dataset]
    return {"text": LAYOUT.dataset(dataset.held_out_of)} if dataset.held_out_of else package_of(dataset.package)


def model_package(wildcards):
    origin = STUDY.models[wildcards.model].origin
    return origin.package if isinstance(origin, PackageSource) else None


def dataset_params(wildcards):
    """The dataset's specification. Where it is a copy of the user's files, their hash as it is now is part of it."""
    name = wildcards.dataset
    spec = specification.dataset_spec(STUDY, name)
    found = content(spec.dataset, spec.results, LAYOUT.dataset(name))
    unset = {} if spec.source else {"source": True, "dataset": {"held_out_of"}}  # others were made without these keys
    return spec.model_dump(mode="json", exclude={"content": True, **unset}) | ({"content": found} if found else {})


def model_params(wildcards):
    """The model's specification. Where it is a local folder, the hash of its files as they are now is part of it."""
    spec, origin = specification.model_spec(STUDY, wildcards.model), STUDY.models[wildcards.model].origin
    local = isinstance(origin, PathSource)
    found = model_content(origin.path, LAYOUT.model(wildcards.model)) if local else None
    return spec.model_dump(mode="json", exclude={"content"}) | ({"content": found} if found else {})


rule dataset:
    input:
        unpack(dataset_files),
    output:
        directory(LAYOUT.dataset("{dataset}")),
    log:
        LAYOUT.log("dataset", "{dataset}"),
    benchmark:
        LAYOUT.benchmark("dataset", "{dataset}")
    priority: 1
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("dataset"),
        runtime=runtime("dataset"),
    params:
        spec=dataset_params,
        code=dataset_code,
    message:
        "Fetching the dataset {wildcards.dataset}"
    script:
        "../scripts/dataset.py"


rule model:
    input:
        unpack(lambda w: package_of(model_package(w))),
    output:
        directory(LAYOUT.model("{model}")),
    log:
        LAYOUT.log("model", "{model}"),
    benchmark:
        LAYOUT.benchmark("model", "{model}")
    priority: 1
    conda:
        "../envs/revela.yaml"
    threads: 1
    resources:
        mem_mb=memory("model"),
        runtime=runtime("model"),
    params:
        spec=model_params,
        code=lambda w: code("revela.text.gguf") if model_package(w) else None,
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
    priority: 1
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
