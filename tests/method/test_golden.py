"""The package against the reference numbers of the authors' code, where they lie beside the checkout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("REVELA_SHARED", ROOT.parent / "shared")) / "golden"

pytestmark = pytest.mark.skipif(
    not (GOLDEN / "check.py").is_file(), reason=f"no reference numbers at {GOLDEN}; REVELA_SHARED says where they are"
)


def test_attention_and_similarity():
    done = subprocess.run(
        [sys.executable, GOLDEN / "check.py"],
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("ok ") >= 15, done.stdout


def load(path):
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata()


@pytest.mark.parametrize("name", ["first_half_vnorm_tau0.05", "first_half_vnorm_tau0.05_dual", "full_novnorm_tau0.05"])
def test_from_text_to_loss_and_gradient(name):
    """Tokens, labels, embeddings, Sim, loss and gradients of the objective are the authors'."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from revela.objectives.revela import Revela
    from revela.retriever import Retriever
    from revela.study.settings import Training

    expected, meta = load(GOLDEN / f"full/{name}.safetensors")
    arguments = json.loads(meta["data_args"])

    def model(part):
        return AutoModelForCausalLM.from_pretrained(GOLDEN / "full" / meta[f"{part}_weights"], dtype=torch.float32)

    def tokenizer(part):
        file = GOLDEN / "full" / meta[f"{part}_weights"] / "tokenizer.json"
        return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="</s>", bos_token="<s>", unk_token="<unk>")

    settings = Training(
        temperature=float(meta["attn_temperature"]),
        value_norm=meta["disable_v_norm"] == "false",
        dual_loss=meta["dual_loss"] == "true",
        first_half=meta["query_mode"] == "first_half",
        query_prefix=arguments["query_prefix"],
        passage_prefix=arguments["passage_prefix"],
        retriever_max_length=arguments["passage_max_len"],
        lm_max_length=arguments["passage_max_len"] - 1,
    )
    retriever = Retriever(
        model("retriever").model,
        tokenizer("retriever"),
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
        max_length=settings.retriever_max_length,
    )
    lm = model("lm")
    objective = Revela(settings, retriever, lm, tokenizer("lm"))
    batch = objective.collate({"text": json.loads(meta["texts"]), "src": "wiki"})

    for side, reference in {"query": "query", "passage": "passage", "lm": "llm"}.items():
        length = batch[f"{side}_input_ids"].shape[1]
        assert torch.equal(batch[f"{side}_input_ids"], expected[f"{reference}_input_ids"][:, :length])
        assert torch.equal(batch[f"{side}_attention_mask"], expected[f"{reference}_attention_mask"][:, :length])
        assert not expected[f"{reference}_attention_mask"][:, length:].any()
    assert torch.equal(batch["lm_labels"], expected["llm_labels"][:, : batch["lm_labels"].shape[1]])

    loss, scalars = objective(batch)
    loss = loss / objective.count(batch)
    torch.testing.assert_close(loss, expected["loss"], rtol=1e-5, atol=0)
    assert scalars["h_loss"] == pytest.approx(expected["h_loss"].item(), rel=1e-5)
    torch.testing.assert_close(objective.similarity(batch), expected["sim"], rtol=1e-4, atol=1e-6)
    loss.backward()
    models = {"retriever": retriever.backbone, "lm": lm}
    for key in (key for key in expected if key.startswith("grad.")):
        part, weight = key.removeprefix("grad.").split(".", 1)
        weight = weight.removeprefix("model.") if part == "retriever" else weight
        ours = models[part].get_parameter(weight).grad
        error = (ours - expected[key]).norm() / expected[key].norm()
        assert error < 2e-5, f"{key}: {error}"
