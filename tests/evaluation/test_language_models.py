"""Language models under lm-evaluation-harness: on a task of the harness with examples of our own, without a network."""

import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM

from revela.evaluation import EvaluationError
from revela.evaluation.language_models import evaluate, load_language_model, score_language_model
from revela.paper.values import measured
from revela.retriever import RetrieverError, add_lora, save_adapter
from revela.study.settings import LmEvaluation, Lora

README = """---
configs:
- config_name: copa
  data_files: [{split: train, path: copa/*}, {split: validation, path: copa/*}]
---
"""


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """A dataset in the hub's layout: COPA with examples of which the first answer is right by turns."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "super-glue"
    (folder / "copa").mkdir(parents=True)
    (folder / "README.md").write_text(README)
    example = {"premise": "It rained.", "choice1": "The grass is wet.", "choice2": "A sum.", "question": "effect"}
    frame = pd.DataFrame([{**example, "idx": i, "label": i % 2} for i in range(6)])
    frame.to_parquet(folder / "copa/validation.parquet")
    return {"super-glue": folder}


def test_scores_stand_where_tables_read_them(lm, datasets, tmp_path, monkeypatch):
    harness = pytest.importorskip("lm_eval", reason="no lm-eval (pip install 'revela[lm]')")
    from lm_eval import evaluator

    # The harness reads the names of all its tasks, which takes longer than the test; here, of one family.
    family = Path(harness.__file__).parent / "tasks/super_glue"
    tasks = partial(evaluator.TaskManager, include_path=str(family), include_defaults=False)
    monkeypatch.setattr(evaluator, "TaskManager", tasks)
    settings = LmEvaluation(tasks={"COPA": {"task": "copa", "dataset": "super-glue"}}, limit=5)
    scores = score_language_model("untrained/lm", lm, settings, datasets, tmp_path / "lm-eval.json")
    right = scores["tasks"]["copa"]["parts"]["COPA"]["per_query"]["accuracy"]
    assert right in ([1, 0, 1, 0, 1], [0, 1, 0, 1, 0])  # the model has one opinion on five equal questions
    values, margins = measured(tmp_path / "lm-eval.json", ["copa"], "accuracy")
    assert values == [100 * sum(right) / 5] * 2 and margins[0] > 0
    assert scores["provenance"]["versions"]["lm_eval"] and scores["protocol"]["limit"] == 5


def test_adapters_are_put_on_the_model_that_they_name(lm, tmp_path):
    model = add_lora(AutoModelForCausalLM.from_pretrained(lm), Lora(rank=2), "CAUSAL_LM")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    save_adapter(model, tmp_path / "adapter", str(lm))
    loaded, tokenizer = load_language_model(tmp_path / "adapter")
    ids = tokenizer("A retriever finds", return_tensors="pt")["input_ids"]
    expected = model.eval()(ids).logits
    assert (loaded(ids).logits - expected).abs().max() < 1e-4
    assert (AutoModelForCausalLM.from_pretrained(lm)(ids).logits - expected).abs().max() > 1e-2


def test_adapters_of_another_model_are_refused(lm, tmp_path):
    """PEFT would leave them out, and the scores would be those of the model before its training."""
    from safetensors.torch import load_file, save_file

    save_adapter(
        add_lora(AutoModelForCausalLM.from_pretrained(lm), Lora(rank=2), "CAUSAL_LM"), tmp_path / "adapter", str(lm)
    )
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name.replace("layers.1", "layers.9"): weight for name, weight in load_file(path).items()}, path)
    with pytest.raises(RetrieverError, match=r"weights of the adapter and of its base do not match: .*layers\.9"):
        load_language_model(tmp_path / "adapter")


def test_a_frozen_language_model_was_not_kept(tmp_path):
    with pytest.raises(EvaluationError, match=r"lm: no config.json, .*was it frozen"):
        load_language_model(tmp_path / "lm")


def test_without_the_harness_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(EvaluationError, match=r"pip install 'revela\[lm\]'"):
        evaluate(None, None, {}, None)
