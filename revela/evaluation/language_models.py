"""Language models before and after their training with a retriever (App. C.6), by lm-evaluation-harness.

The harness provides the tasks' prompts and computes the accuracy. The texts come from this project's own resources, so
no network is needed. Score files have the same form as those of retrieval, and tables read them in the same way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from revela.evaluation import EvaluationError
from revela.files import write_json
from revela.pretrained import load_model, load_tokenizer
from revela.provenance import folder_sha256, git_commit, versions
from revela.retriever import load_adapter

if TYPE_CHECKING:
    from revela.study.settings import LmEvaluation

METRIC = "accuracy"


def load_language_model(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The language model of a Hugging Face folder, or of adapters, which name the folder of their model; its tokenizer.

    The model is in bfloat16 on a GPU if there is one, else in float32. Raises EvaluationError for a folder that holds
    neither, and RetrieverError for adapters of another model.
    """
    folder = Path(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    adapter = folder / "adapter_config.json"
    base = folder
    if adapter.is_file():
        named = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        base = Path(os.path.normpath(folder.resolve() / named))
    if not (base / "config.json").is_file():
        raise EvaluationError(f"{base}: no config.json, so this is no language model (was it frozen in training?)")
    model = load_model(AutoModelForCausalLM, base, dtype)
    if adapter.is_file():
        model = load_adapter(model, folder).merge_and_unload()
    return model.to(device).eval(), load_tokenizer(base)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Mapping[str, str | Path],
    limit: int | None,
    batch_size: int = 8,
) -> dict[str, list[float]]:
    """task -> 1.0 or 0.0 for each of its first `limit` examples: whether the model was right. Prompts are zero-shot.

    tasks: task of lm-evaluation-harness -> folder of its dataset, as it is on the hub.
    Raises EvaluationError where lm-eval is not installed.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        raise EvaluationError("lm-eval is not installed; pip install 'revela[lm]'") from None
    members = [{"task": task, "dataset_path": str(folder)} for task, folder in tasks.items()]
    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
        tasks=[{"group": "language_model", "task": members}],
        num_fewshot=0,
        limit=limit,
        bootstrap_iters=0,
    )
    return {task: [float(sample["acc"]) for sample in results["samples"][task]] for task in tasks}


def score_language_model(
    system: str, folder: str | Path, settings: LmEvaluation, datasets: Mapping[str, str | Path], output: str | Path
) -> dict[str, Any]:
    """Test a language model and write the result as JSON, in the form of `revela.evaluation.scores`.

    Args:
        system: Its name in the result.
        folder: What `load_language_model` reads.
        datasets: dataset -> its folder.
        output: A JSON file: ``system``, ``benchmark``, ``protocol``, ``tasks`` and ``provenance``.
    """
    import importlib.metadata

    names = {task.task: label for label, task in settings.tasks.items()}
    folders = {task.task: datasets[task.dataset] for task in settings.tasks.values()}
    right = evaluate(*load_language_model(folder), folders, settings.limit)
    scores = {
        "system": system,
        "benchmark": "lm-eval",
        "protocol": {"limit": settings.limit, "examples in the prompt": 0, "metric": "acc of lm-evaluation-harness"},
        "tasks": {task: _task_scores(label, right[task]) for task, label in names.items()},
        "provenance": {
            "commit": git_commit(),
            "versions": {**versions(), "lm_eval": importlib.metadata.version("lm_eval")},
            "model": folder_sha256(folder),
        },
    }
    write_json(output, scores, indent=None)
    return scores


def _task_scores(label: str, right: list[float]) -> dict[str, Any]:
    metrics = {METRIC: sum(right) / len(right)}
    examples = [str(number) for number in range(len(right))]
    part = {"metrics": metrics, "counts": {"queries": len(right)}, "queries": examples, "per_query": {METRIC: right}}
    return {"label": label, "metrics": metrics, "parts": {label: part}}
