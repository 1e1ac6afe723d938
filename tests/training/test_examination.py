"""The one examination of models, tokenizers, lengths and chunks: each fault in one line that names key, value and what is valid."""

import json
import re
import shutil

import pyarrow as pa
import pytest
import torch
import transformers
from conftest import make_backbone
from transformers import AutoModel

from revela.command import cutting, own_study
from revela.errors import RevelaError
from revela.pretrained import load_tokenizer, positions
from revela.study.settings import Training
from revela.training.examination import check_chunks, examine, tokens_line

SMALL = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 32}


def edited(folder, place, **changes):
    """A copy of a model's folder with other values in its config.json."""
    shutil.copytree(folder, place)
    path = place / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return place


def fault(settings, retriever, lm=None, **options):
    with pytest.raises(RevelaError) as error:
        examine(Training(**settings), retriever, lm, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_fits_passes(backbone, lm):
    examine(Training(retriever_max_length=2048, lm_max_length=2048), backbone, lm, measured=2048)
    examine(Training(lora={"rank": 4}), backbone, lm)
    examine(Training(), None, None)


def test_lengths_beyond_the_positions(backbone, lm):
    said = fault({"retriever_max_length": 3000}, backbone)
    assert (
        said == f"training.retriever_max_length: 3000 tokens, but {backbone} has positions for 2048; valid: 4 to 2048"
    )
    assert fault({"lm_max_length": 3000}, backbone, lm).startswith("training.lm_max_length: 3000 tokens, but")
    assert fault({}, backbone, measured=4096).startswith("evaluation.max_length: 4096 tokens, but")


@pytest.mark.parametrize(
    "kind, settings, expected",
    [
        ("Llama", {"max_position_embeddings": 128}, 128),
        ("Bert", {"max_position_embeddings": 64}, 64),
        ("Roberta", {"max_position_embeddings": 66, "pad_token_id": 1}, 64),  # they begin after the pad's
        ("GPT2", {"n_positions": 96, "n_embd": 16, "n_layer": 1, "n_head": 2}, 96),
        ("Bloom", {"n_layer": 1, "n_head": 2}, None),  # ALiBi
        (
            "Qwen2",
            {
                "max_position_embeddings": 128,
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
            },
            512,
        ),
        (
            "Llama",
            {
                "max_position_embeddings": 1024,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 32.0,
                    "original_max_position_embeddings": 64,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                },
            },
            1024,
        ),
        ("Llama", {"max_position_embeddings": 128, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 256),
    ],
)
def test_positions_by_architecture(kind, settings, expected):
    config = getattr(transformers, f"{kind}Config")(**SMALL | settings)
    with torch.device("meta"):
        assert positions(AutoModel.from_config(config)) == expected


def test_weights_that_were_not_copied_whole(backbone, tmp_path):
    folder = edited(backbone, tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert "model/model.safetensors: weights that cannot be read (" in fault({}, folder)
    weights.rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "1 of 2 files of its weights are missing, model-00002-of-00002.safetensors" in fault({}, None, folder)
    for path in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        path.unlink()
    assert "model: no model.safetensors" in fault({}, folder)


def test_an_embedding_that_is_smaller_than_the_vocabulary(backbone, tmp_path):
    rows = len(load_tokenizer(backbone)) - 3
    said = fault({}, edited(backbone, tmp_path / "small", vocab_size=rows))
    assert (
        f"its tokenizer has ids up to {rows + 2} (" in said and f"its embedding {rows} rows, so that 3 tokens" in said
    )


def test_a_token_for_images_may_lack_a_row(backbone, tmp_path):
    folder = edited(backbone, tmp_path / "seeing")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    assert len(load_tokenizer(folder)) == len(load_tokenizer(backbone)) + 1
    examine(Training(), folder, folder)


def test_a_prefix_that_leaves_nothing_of_the_text(backbone):
    said = fault({"retriever_max_length": 4, "passage_prefix": "a passage: "}, backbone)
    assert re.fullmatch(
        r"training.retriever_max_length: 4 tokens, and training.\w+_prefix '.*' and EOS are (\d+), so that nothing of a "
        r"text is read; valid: more than \1",
        said,
    )


def test_an_encoder_is_no_backbone(backbone, tmp_path):
    folder = tmp_path / "bert"
    shutil.copytree(backbone, folder)
    transformers.BertConfig(**SMALL | {"vocab_size": 400}).save_pretrained(folder)
    assert "bert: BertModel is an encoder" in fault({}, folder)


def test_tokens_that_are_needed(tmp_path):
    folder = make_backbone(tmp_path / "mute", eos=False)
    assert "mute: the tokenizer has no EOS token" in fault({}, folder)
    assert "mute: the language model's tokenizer has neither a pad nor an EOS" in fault({}, None, folder)


def test_targets_of_adapters(backbone, lm):
    said = fault({"lora": {"targets": ["q_proj", "qkv"]}}, backbone)
    assert said.startswith("training.lora.targets: LlamaModel has no qkv; its linear layers: q_proj")
    examine(Training(lora={"targets": ["q_proj"]}, freeze_lm=True), backbone, lm)


def test_own_text_is_refused_before_anything_is_written(backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/n.txt").write_text("One two three.")
    with pytest.raises(RevelaError, match="training.retriever_max_length: 3000 tokens"):
        own_study.write_study("notes", str(backbone), "out", settings=["training.retriever_max_length=3000"])
    assert not (tmp_path / "out").exists()


def test_text_without_spaces_is_cut_by_tokens(backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/n.txt").write_text("我喜欢读书。你呢？", encoding="utf-8")
    study, _ = own_study.write_study("notes", str(backbone), "out")
    assert study.config.chunking.max_tokens == 146 and study.config.chunking.tokenizer
    assert cutting.said(study).startswith("chunks: complete sentences, 146 tokens at most")
    study, _ = own_study.write_study("notes", str(backbone), "short", settings=["training.retriever_max_length=32"])
    assert study.config.chunking.max_tokens == 32 - 9 - 2
    study, _ = own_study.write_study("notes", str(backbone), "words", settings=["chunking.tokenizer=null"])
    assert study.config.chunking.max_tokens is None and "120 words at most" in cutting.said(study)


# --- chunks


def table(*texts):
    names = [f"mine/n.jsonl:{number}" for number in range(4)]
    return pa.table({"text": [text for text in texts], "document": [names] * len(texts)})


def test_a_chunk_without_a_token_is_named_before_the_first_step(lm):
    tokenizer = load_tokenizer(lm)
    check_chunks(table(["One.", "1", "</s> two", "??"], ["我", "()", "a", "</s>!"]), tokenizer, "d")
    with pytest.raises(RevelaError) as error:
        check_chunks(table(["a", "b", "c", "d"], ["a", "</s>", "", "d"]), tokenizer, "batches.parquet")
    said = str(error.value)
    assert said.startswith(
        "batches.parquet: 2 of 8 chunks have no token for the language model, the first of mine/n.jsonl:1"
    )
    assert "'</s>'" in said and "\n" not in said


def test_what_the_lengths_cut_off_is_said(backbone, lm):
    """ASCII letters that no merge joins are a token each: a chunk has 8, with prefix and EOS 10, with BOS 9."""
    settings = Training(passage_prefix="~", retriever_max_length=8, lm_max_length=9)
    said = tokens_line(settings, table(["~^~^~^~^"] * 4), backbone, lm)
    assert said == (
        "tokens: the retriever loses 20.0 % (retriever_max_length 8) and the language model loses 0.0 % (lm_max_length 9), "
        "of 4 chunks in 1 batches"
    )
