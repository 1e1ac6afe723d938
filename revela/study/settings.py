"""The typed configuration: what a YAML file may say, one class a section.

A section belongs to the result or to the machine: a change in `compute` runs no finished job again, a change in any other
section runs what depends on it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from revela.hardware import fast_precision
from revela.study.base import FOLDER, NAME, ConfigError, Name, Strict, added, check_known, first_fault
from revela.study.chunking import Chunking
from revela.study.corpora import Corpus, Dataset, TextSource
from revela.study.cross_attention import CrossAttention
from revela.study.methods import METHODS
from revela.study.package import Package
from revela.study.shown import Figure, Table

LM_EVAL = "lm-eval"  # the benchmark of language models


class Lora(Strict):
    """Low-rank adaptation by peft."""

    rank: int = Field(256, ge=1, description="Rank r of each adapter (section 4.1).")
    alpha: int = Field(64, ge=1, description="Scaling numerator: the adapter is scaled by alpha / rank.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout on the adapter's input.")
    targets: list[str] = Field(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="Linear layers that carry an adapter.",
    )


def _decided(precision: Any) -> Any:
    if precision not in ("bf16", "fp32", "fast"):
        raise ValueError("valid: bf16, fp32, fast")
    return fast_precision() if precision == "fast" else precision


# What is decided when a configuration is read is what specifications and results say.
Precision = Annotated[
    Literal["bf16", "fp32"],
    BeforeValidator(_decided, json_schema_input_type=Literal["bf16", "fp32", "fast"]),
]


class Training(Strict):
    """Every setting of one training run. `Study.training_settings` resolves it for a cell."""

    # the retriever's view of a chunk
    query_prefix: str = Field("query: ", description="Put before a chunk that is embedded as a query.")
    passage_prefix: str = Field("passage: ", description="Put before a chunk that is embedded as a passage.")
    retriever_max_length: int = Field(157, ge=4, description="Tokens of prefix + chunk + EOS at most.")
    lm_max_length: int = Field(156, ge=4, description="Tokens of a chunk in the language model at most.")
    first_half: bool = Field(False, description="Queries see only the first half of their tokens (App. B.5).")
    first_half_except: list[str] = Field([], description="Datasets, or src of batches, for which first_half is off.")
    # similarity and in-batch attention
    similarity: Literal["learned", "uniform", "shuffled"] = Field(
        "learned", description="learned: the method; uniform, shuffled: controls without the retriever's signal."
    )
    temperature: float = Field(1e-4, gt=0, description="tau of Sim (section 3.3); tau_r of REPLUG; T of Contriever.")
    similarity_dtype: Literal["bfloat16", "float32"] = Field(
        "float32", description="Precision in which cosines and their softmax are taken."
    )
    value_norm: bool = Field(False, description="V-normalisation, eq. 8.")
    attention: Literal["sparse", "dense"] = Field(
        "sparse", description="Cross attention over the pairs of chunks whose Sim counts, or over all: the oracle."
    )
    cross_attention: CrossAttention = Field(CrossAttention(), description="The gate of b_i in eq. 5 and 7.")
    dual_loss: bool = Field(False, description="Add the e-stream's loss with weight 1.")
    freeze_lm: bool = Field(False, description="Train the retriever alone, and gates that are learned.")
    # REPLUG (App. B.3), Contriever (App. C.1)
    lm_temperature: float = Field(1e-3, gt=0, description="eta_m of REPLUG.")
    include_self: bool = Field(True, description="A document is among those that REPLUG's distributions are over.")
    length_normalised: bool = Field(True, description="REPLUG's l_ij is the mean, not the sum, over the tokens of D_i.")
    shared_negatives: Literal["none", "step"] = Field("none", description="Contriever's, beside a query's own.")
    # optimisation
    start: Literal["backbone", "by"] = added(
        "backbone", "Weights that training begins with: the backbones', or those of the cell that grouped the corpus."
    )
    lora: Lora | None = Field(None, description="Adapters on both models; null: full fine-tuning.")
    learning_rate: float = Field(1e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(100, ge=0)
    warmup: Literal["linear", "log"] = Field(
        "linear", description="How the learning rate rises in the warm-up: by the step, or by its logarithm."
    )
    max_grad_norm: float = Field(1.0, gt=0)
    batches_per_step: int = Field(32, ge=1, description="Batches in one optimiser step, over all processes.")
    processes_per_batch: int = Field(
        1, ge=1, description="Processes that share each batch, which has as many chunks for each of them."
    )
    loss_mean: Literal["items", "batches"] = Field("items", description="What weighs the same in the loss of a step.")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps; null: one epoch.")
    seed: int = Field(42, ge=0)
    # arithmetic
    precision: Precision = Field(
        "bf16",
        description="Precision of frozen weights and activations; fast: bf16 on a GPU or CPU with units for it, else fp32.",
    )
    zero_stage: int = Field(1, ge=0, le=3, description="DeepSpeed ZeRO stage.")
    compile: bool = Field(False, description="torch.compile of norms and MLPs; not with ZeRO stage 3. For GPUs.")

    @model_validator(mode="after")
    def _whole_weights(self):
        if self.compile and self.zero_stage == 3:
            raise ValueError("compile: true needs zero_stage 0, 1 or 2; stage 3 gathers weights as it goes")
        return self

    @property
    def weights(self) -> dict[str, Any]:
        """What decides which weights are trained, and what they mean; a cell goes on from one that agrees in it."""
        lora = {f"lora.{name}": getattr(self.lora, name, None) for name in ("rank", "alpha", "targets")}
        return {**lora, "freeze_lm": self.freeze_lm, "cross_attention.learned": self.cross_attention.learned}


class Evaluation(Strict):
    """Protocol switches of the evaluation."""

    query_prefix: str = Field("query:  ", description="Prefix of queries for systems trained here.")
    passage_prefix: str = Field("passage:  ", description="Prefix of documents for systems trained here.")
    max_length: int = Field(2048, ge=4, description="Tokens of a query or document at most.")
    document_text: Literal["title+text", "text"] = Field("title+text")
    exclude: bool = Field(True, description="Remove excluded ids before the cut (BRIGHT).")
    top_k: int = Field(1000, ge=10, description="Documents kept for a query.")
    batch_tokens: int = Field(16384, ge=64, description="Tokens in an encoding batch at most.")
    precision: Literal["bf16", "fp32"] = Field(
        "fp32", description="Precision of retrievers that are trained here, and of backbones before training."
    )
    encoder_precision: Literal["stored", "bf16", "fp32"] = Field(
        "fp32", description="Precision of off-the-shelf encoders; stored: of their weights as published."
    )
    gain_batches: int = Field(
        100, ge=1, description="Batches of a corpus on which Sim, and what a language model gains by it, are measured."
    )


class LmTask(Strict):
    """A task of lm-evaluation-harness, on a dataset of this configuration."""

    task: str = Field(description="Its name there.")
    dataset: str = Field(description="A key of `datasets`.")


class LmEvaluation(Strict):
    """How a language model is tested before and after its training (App. C.6): benchmark `lm-eval` of a table."""

    tasks: dict[str, LmTask] = Field({}, description="The task's name in the paper's table -> the task.")
    limit: int | None = Field(None, ge=1, description="Examples of a task at most, the first ones; null: all.")


class Compute(Strict):
    """How jobs are carried out, which changes no result. Memory and time are planned where they are null.

    Site facts (partition, account, GPU model) stand in `workflow/profiles/slurm/site.yaml`.
    """

    training_nodes: int = Field(1, ge=1, description="Nodes of a training run, by SLURM.")
    training_gpus: int = Field(4, ge=0, description="GPUs of a training run, on all its nodes together.")
    training_processes: int = Field(4, ge=1, description="Processes of a training run that has no GPU, likewise.")
    training_threads: int = Field(16, ge=1, description="CPU threads of a training run, on each of its nodes.")
    training_mem_mb: int | None = Field(None, ge=500)
    training_runtime: int | None = Field(None, ge=1, description="Minutes.")
    gradient_checkpointing: bool | None = Field(
        None,
        description="Compute activations again in the backward pass instead of keeping them; null: where memory asks for it.",
    )
    checkpoint_every: int = Field(500, ge=1, description="Steps between the checkpoints of a training run.")
    time_budget_minutes: float | None = Field(
        None, gt=0, description="Training saves and exits with status 75 after so long; the profile submits it again."
    )
    evaluation_gpus: int = Field(
        1, ge=0, description="GPUs of one evaluation at most; it asks for one, and for another by each planned hour."
    )
    evaluation_processes: int = Field(1, ge=1, description="Processes that share an evaluation without GPU.")
    scoring_gpus: int | None = Field(None, ge=0, description="GPUs that share REPLUG's scores; null: as evaluation.")
    evaluation_threads: int = Field(8, ge=1)
    evaluation_mem_mb: int | None = Field(None, ge=500)
    evaluation_runtime: int | None = Field(None, ge=1, description="Minutes.")
    shard_documents: int = Field(50_000, ge=1, description="Documents encoded and scored at a time.")
    store_embeddings: bool = Field(
        False,
        description="Keep documents' embeddings, so that tasks that share texts encode them once. 4 bytes a number.",
    )
    api_budget: float = Field(0.0, ge=0, description="US dollars that requests to one API model may cost in all.")
    data_threads: int = Field(16, ge=1)
    data_mem_mb: int | None = Field(None, ge=500)
    data_runtime: int | None = Field(None, ge=1, description="Minutes.")
    # what plans assume until a job has been measured
    device: str = Field("A100", description="GPU, by its name in revela.plan.flops.PEAK.")
    training_mfu: float = Field(0.08, gt=0, le=1, description="Share of the device's peak that training reaches.")
    encoding_mfu: float = Field(
        0.7, gt=0, le=1, description="Share of the device's peak, in its precision, that encoding's products reach."
    )
    core_flops: float = Field(2e10, gt=0, description="Operations a second of one CPU core, where there is no GPU.")

    @property
    def processes(self) -> int:
        """Of a training run."""
        return self.training_gpus or self.training_processes

    @property
    def scorers(self) -> int:
        """GPUs that share REPLUG's scores."""
        return self.evaluation_gpus if self.scoring_gpus is None else self.scoring_gpus

    @model_validator(mode="after")
    def _nodes_are_alike(self):
        if self.processes % self.training_nodes:
            key = "training_gpus" if self.training_gpus else "training_processes"
            raise ValueError(f"{key}: {self.processes} is not a multiple of training_nodes, {self.training_nodes}")
        return self


class Config(Strict):
    """One scale of the study: the paper's, the demo's or tiny's."""

    scale: str = Field(pattern=NAME, description="Rows of the sheets with this scale are used.")
    results: str = Field(pattern=FOLDER, description="Folder that everything is written to.")
    seed: int = Field(42, ge=0, description="Seed of corpus sampling and training.")
    runs: str = "config/runs.tsv"
    models: str = "config/models.tsv"
    benchmarks: str = "config/benchmarks.tsv"
    anchors: str | None = Field(None, description="Sheet of published scores that the evaluation must reach.")
    packages: dict[Name, Package] = Field({}, description="Files of distributions on the package index.")
    deviations: str | None = Field(None, description="Sheet of printed values that ours are not expected to reach.")
    datasets: dict[Name, Dataset]
    corpora: dict[Name, Corpus]
    chunking: Chunking = Chunking()
    training: Training = Training()
    methods: dict[Literal[tuple(METHODS)], dict[str, Any]] = Field(
        {}, description="Overrides of `training` for each method."
    )
    variants: dict[Name, dict[str, Any]] = Field({}, description="Named overrides of `training`, the last word.")
    evaluation: Evaluation = Evaluation()
    lm_evaluation: LmEvaluation = LmEvaluation()
    export_scores: list[str] = Field([], description="Benchmarks whose scores a cell's model card has.")
    tables: dict[Name, Table] = Field({})
    figures: dict[Name, Figure] = Field({})
    before_after: dict[str, str] = Field(
        {}, description="Benchmark -> the cell whose answers are shown beside those of its untrained backbone."
    )
    compute: Compute = Compute()

    @property
    def held_out(self) -> dict[str, TextSource]:
        """dataset -> the source that holds documents of it out."""
        sources = [source for corpus in self.corpora.values() for source in corpus.sources]
        return {source.dataset: source for source in sources if source.hold_out}

    @model_validator(mode="before")
    @classmethod
    def _own_files_are_a_dataset(cls, values: Any) -> Any:
        """`corpora: notes: {files: PATTERN}` is short for a dataset of these files and a corpus with this one source."""
        if not isinstance(values, dict) or not isinstance(values.get("corpora"), dict):
            return values
        corpora, datasets = dict(values["corpora"]), values.get("datasets") or {}
        for name, corpus in values["corpora"].items():
            if not isinstance(corpus, dict) or "files" not in corpus or corpus.keys() & {"sources", "mix"}:
                continue
            if not isinstance(datasets, dict) or name in datasets:
                raise ConfigError(f"corpora.{name}.files: makes a dataset {name!r}, and datasets has one of that name")
            own = {key: corpus[key] for key in ("text", "hold_out") if key in corpus}
            rest = {key: value for key, value in corpus.items() if key != "files" and key not in own}
            source = {"dataset": name, "mixed": True, **own}
            corpora[name] = {**rest, "sources": [source]}
            datasets = {**datasets, name: {"files": corpus["files"]}}
        return {**values, "corpora": corpora, "datasets": datasets}

    @model_validator(mode="after")
    def _overrides_are_known(self):
        """Partial overrides are checked where they are written, not when a cell first uses them."""
        overrides = {f"methods.{name}": values for name, values in self.methods.items()}
        overrides |= {f"variants.{name}": values for name, values in self.variants.items()}
        overrides |= {f"corpora.{name}.training": corpus.training for name, corpus in self.corpora.items()}
        for where, values in overrides.items():
            try:
                Training.model_validate({**self.training.model_dump(exclude_unset=True), **values})
            except ValidationError as error:
                raise ConfigError(first_fault(error, Training, where)) from None
        return self

    @model_validator(mode="after")
    def _names_resolve(self):
        for name, dataset in self.datasets.items():
            if dataset.package:
                check_known(f"datasets.{name}.package", dataset.package, self.packages)
            if dataset.held_out_of:
                check_known(f"datasets.{name}.held_out_of", dataset.held_out_of, self.held_out)
        for corpus, spec in self.corpora.items():
            for source in spec.sources:
                check_known(f"corpora.{corpus}.sources.dataset", source.dataset, self.datasets)
            for part in spec.mix:
                check_known(f"corpora.{corpus}.mix", part, self.corpora)
                if self.corpora[part].mix:
                    raise ConfigError(f"corpora.{corpus}.mix: {part!r} is a mix itself; name corpora that have text")
            if spec.regroup:
                check_known(f"corpora.{corpus}.regroup.corpus", spec.regroup.corpus, self.corpora)
                of = self.corpora[spec.regroup.corpus]
                if of.regroup:
                    raise ConfigError(
                        f"corpora.{corpus}.regroup.corpus: {spec.regroup.corpus!r} is regrouped itself; valid: "
                        f"{of.regroup.corpus}"
                    )
                if of.ready and spec.regroup.keep_document:
                    raise ConfigError(
                        f"corpora.{corpus}.regroup.keep_document: the batches of {spec.regroup.corpus!r} are ready ones, "
                        "which do not name their documents; valid: 0"
                    )
            if spec.released:
                check_known(f"corpora.{corpus}.released", spec.released, self.datasets)
        if self.chunking.punkt != "nltk":
            check_known("chunking.punkt", self.chunking.punkt, self.datasets)
        for label, task in self.lm_evaluation.tasks.items():
            check_known(f"lm_evaluation.tasks.{label}.dataset", task.dataset, self.datasets)
        for name, table in self.tables.items():
            for part in table.means_of.values():
                check_known(
                    f"tables.{name}.means_of", part, [key for key, other in self.tables.items() if other.benchmark]
                )
                if set(self.tables[part].columns) != set(table.columns):
                    raise ValueError(f"tables.{name}: its columns are not those of {part}, whose means it shows")
        for name, figure in self.figures.items():
            for part in figure.panels.values():
                check_known(f"figures.{name}.panels", part, self.tables)
                if figure.kind == "lines" and not self.tables[part].groups:
                    raise ValueError(f"figures.{name}: a figure of lines needs a table with groups, {part} has none")
        return self
