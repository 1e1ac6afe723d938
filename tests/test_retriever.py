import copy
import json
import os
import shutil
from functools import partial
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import TEXTS, make_backbone, make_tokenizer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM

from revela.method.pooling import POOLINGS
from revela.pretrained import PretrainedError
from revela.provenance import write_manifest
from revela.retriever import Retriever, RetrieverError, add_lora, load_adapter, save_adapter
from revela.study.settings import Lora
from revela.study.system import Pooling

LORA = Lora(rank=4, alpha=8, dropout=0.1)
PREFIXES = {"query_prefix": "query: ", "passage_prefix": "passage: "}


def load(folder, **overrides):
    return Retriever.from_backbone(folder, **{"max_length": 32, **PREFIXES, **overrides}).eval()


class Table(nn.Module):
    """A backbone whose hidden state at a position is known: a row of a table, by token id."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows))
        self.config = SimpleNamespace(hidden_size=self.rows.shape[1])

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.rows[input_ids])


# --- pooling, by hand


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("eos", [[3.0, 4.0], [0.0, 2.0]]), ("cls", [[1.0, 0.0], [0.0, 2.0]]), ("mean", [[2.0, 2.0], [0.0, 2.0]])],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_by_hand(backbone, pooling, expected, normalize):
    tokenizer = load(backbone).tokenizer
    rows = [[1.0, 0.0], [2.0, 2.0], [3.0, 4.0], [0.0, 2.0], [100.0, 100.0]]
    retriever = Retriever(Table(rows), tokenizer, max_length=8, pooling=pooling, normalize=normalize)
    ids, mask = torch.tensor([[0, 1, 2, 4], [3, 4, 4, 4]]), torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])
    expected = torch.tensor(expected)
    if normalize:
        expected = expected / (expected**2).sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(retriever(ids, mask), expected)


def test_every_pooling_that_a_sheet_may_name_is_known():
    assert set(POOLINGS) == set(get_args(Pooling))


def test_the_gradient_reaches_the_backbone(backbone):
    retriever = load(backbone)
    retriever(**retriever.tokenize(TEXTS[:2], "query"))[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in retriever.parameters())


# --- tokens


def test_tokens_are_prefix_text_eos_and_the_rest_is_padding(backbone):
    retriever = load(backbone)
    encode = retriever.tokenizer.encode
    tokens = retriever.tokenize(["sorted", "sorted values"], "passage")
    long, short = encode("passage: sorted values"), encode("passage: sorted")
    padding = [1] * (len(long) - len(short))
    assert tokens["input_ids"].tolist() == [[*short, 1, *padding], [*long, 1]]
    assert tokens["attention_mask"].tolist() == [[1] * (len(short) + 1) + [0] * len(padding), [1] * (len(long) + 1)]
    assert retriever.tokenize(["sorted"], "query")["input_ids"].tolist() == [[*encode("query: sorted"), 1]]


def test_bos_is_the_tokenizers_own(lm):
    ids = load(lm).tokenize(["text"], "query")["input_ids"][0].tolist()
    assert ids[0] == 0 and ids[-1] == 1 and ids.count(0) == 1


def test_long_texts_are_cut_and_still_end_in_eos(lm):
    retriever = load(lm, max_length=16)
    for text in ("word " * 500, "x" * 20):
        ids = retriever.tokenize([text], "query")["input_ids"][0].tolist()
        whole = retriever.tokenizer.encode("query: " + text)
        assert len(whole) > 16 and ids == [*whole[:15], 1]


@pytest.mark.parametrize("folder", ["backbone", "lm"])
def test_first_half_keeps_half_of_the_ids_with_prefix_and_bos(folder, request):
    retriever = load(request.getfixturevalue(folder), max_length=16)
    for text in ("sorted", "sorted values", "a long text " * 20):
        whole = retriever.tokenize([text], "query")["input_ids"][0].tolist()[:-1]
        half = retriever.tokenize([text], "query", first_half=True)["input_ids"][0].tolist()
        assert half == [*whole[: len(whole) // 2], 1]


def test_a_tokenizer_that_appends_eos_itself_gets_no_second_one(backbone):
    from tokenizers import processors

    plain, retriever = load(backbone), load(backbone)
    template = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    retriever.tokenizer.backend_tokenizer.post_processor = template
    assert retriever.tokenizer.encode("text")[-1] == 1
    for texts in (["text"], TEXTS, ["long " * 100]):
        assert retriever.tokenize(texts, "query")["input_ids"].equal(plain.tokenize(texts, "query")["input_ids"])


def test_mean_pooling_adds_no_eos(backbone):
    retriever = load(backbone, pooling="mean")
    assert retriever.tokenize(["text"], "query")["input_ids"][0].tolist() == retriever.tokenizer.encode("query: text")


def test_unusable_settings_are_refused(backbone, tmp_path):
    without_eos = make_backbone(tmp_path / "without_eos", eos=False)
    with pytest.raises(RetrieverError, match="without_eos: the tokenizer has no EOS token"):
        load(without_eos)
    assert load(without_eos, pooling="mean").encode(["text"]).shape == (1, 32)
    with pytest.raises(RetrieverError, match="pooling 'max' is unknown; valid are eos, mean, cls"):
        load(backbone, pooling="max")
    with pytest.raises(RetrieverError, match="kind 'document' is unknown; valid are query, passage"):
        load(backbone).encode(["text"], kind="document")
    with pytest.raises(RetrieverError, match="no config.json"):
        load(tmp_path)


# --- encoding


def test_embeddings_are_unit_rows_in_order_whatever_the_batches(backbone):
    retriever = load(backbone)
    texts = [*TEXTS, "", "short", "word " * 100]
    embeddings = retriever.encode(texts, kind="passage")
    assert embeddings.dtype == np.float32 and embeddings.shape == (len(texts), 32)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    one_by_one = np.concatenate([retriever.encode([text], kind="passage") for text in texts])
    np.testing.assert_allclose(embeddings, one_by_one, atol=1e-5)
    np.testing.assert_allclose(embeddings, retriever.encode(texts, kind="passage", batch_tokens=50), atol=1e-5)
    assert abs(embeddings - retriever.encode(texts, kind="query")).max() > 0.01


def test_padding_does_not_change_an_embedding(backbone):
    retriever = load(backbone)
    tokens = retriever.tokenize(TEXTS[:1], "query")
    padded = {name: nn.functional.pad(ids, (0, 9), value=int(name == "input_ids")) for name, ids in tokens.items()}
    torch.testing.assert_close(retriever(**padded), retriever(**tokens), atol=1e-6, rtol=0)


def test_equal_texts_tie_exactly_and_are_encoded_once(backbone):
    retriever, seen = load(backbone), []
    retriever.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    texts = ["twin", *TEXTS, "twin", "longer and longer " * 30, "longer and longer " * 31, *TEXTS[:2], "twin"]
    embeddings = retriever.encode(texts, batch_tokens=64)
    assert (embeddings[0] == embeddings[7]).all() and (embeddings[0] == embeddings[12]).all()
    assert (embeddings[8] == embeddings[9]).all(), "equal after the cut"
    assert sum(map(len, seen)) == len(TEXTS) + 2


def test_a_batch_holds_no_more_tokens_than_allowed(backbone):
    retriever, sizes = load(backbone, max_length=64), []
    retriever.backbone.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    texts = [f"{'word ' * length}{length}" for length in range(12)]
    retriever.encode(texts, batch_tokens=70)
    assert sum(rows for rows, _ in sizes) == len(texts)
    assert all(rows * length <= 70 or rows == 1 for rows, length in sizes)
    assert max(rows for rows, _ in sizes) > 1


def test_encoding_nothing_gives_no_rows_and_the_mode_is_kept(backbone):
    retriever = load(backbone).train()
    assert retriever.encode([]).shape == (0, 32)
    assert retriever.training and retriever.backbone.training


def test_a_bare_string_is_no_list_of_texts(backbone):
    for call in (load(backbone).encode, load(backbone).tokenize):
        with pytest.raises(RetrieverError, match=r"one text where a list .* write \['how to sort a list'\]"):
            call("how to sort a list", "query")


def test_an_embedding_that_is_not_finite_is_an_error_that_names_the_text(backbone):
    retriever = load(backbone)
    row = retriever.tokenizer.encode("~")[0]
    with torch.no_grad():
        retriever.backbone.embed_tokens.weight[row] = float("nan")
    with pytest.raises(RetrieverError, match="the embedding of query 1 is not finite: 'a ~'"):
        retriever.encode(["fine", "a ~", "fine, too"])


# --- folders


def trained(retriever):
    """All trainable parameters moved away from where they start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in retriever.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return retriever


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize("pooling", ["eos", "mean"])
@pytest.mark.filterwarnings("error")  # a terminal shows them
def test_a_saved_retriever_encodes_alike(backbone, tmp_path, lora, pooling):
    start = load(backbone, pooling=pooling).encode(TEXTS)
    retriever = trained(load(backbone, lora=lora, pooling=pooling))
    expected = retriever.encode(TEXTS)
    assert abs(expected - start).max() > 0.01
    retriever.save(tmp_path / "retriever")
    loaded = Retriever.load(tmp_path / "retriever")
    assert not loaded.training
    np.testing.assert_array_equal(loaded.encode(TEXTS), expected)
    assert all(not name.endswith((".bin", ".pt", ".md")) for name in os.listdir(tmp_path / "retriever"))
    loaded.save(tmp_path / "again")
    for name in os.listdir(tmp_path / "retriever"):
        assert (tmp_path / "retriever" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_loaded_retriever_takes_other_prefixes_and_lengths(backbone, tmp_path):
    load(backbone).save(tmp_path / "retriever")
    loaded = Retriever.load(tmp_path / "retriever", query_prefix="Q: ", max_length=9)
    assert (loaded.query_prefix, loaded.passage_prefix, loaded.max_length) == ("Q: ", "passage: ", 9)
    np.testing.assert_array_equal(loaded.encode(TEXTS), load(backbone, query_prefix="Q: ", max_length=9).encode(TEXTS))


def test_lora_trains_float32_adapters_alone_on_a_bfloat16_base(backbone):
    torch.manual_seed(0)
    retriever = load(backbone, lora=LORA, dtype=torch.bfloat16)
    for name, parameter in retriever.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)
    assert retriever.encode(TEXTS).dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(retriever.encode(TEXTS), axis=1), 1, atol=1e-6)


def test_every_target_of_an_adapter_is_a_layer(tmp_path, backbone):
    """Phi-3 has fused matrices; PEFT alone would adapt o_proj and down_proj, and say nothing of the rest."""
    make_tokenizer(tmp_path)
    config = Phi3Config(
        vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, pad_token_id=1
    )
    Phi3ForCausalLM(config).save_pretrained(tmp_path)
    lacks = "training.lora.targets: .* has no q_proj, k_proj, v_proj, gate_proj, up_proj; its linear layers: "
    with pytest.raises(PretrainedError, match=lacks + "o_proj, qkv_proj, gate_up_proj, down_proj$"):
        load(tmp_path, lora=LORA)
    fused = LORA.model_copy(update={"targets": ["qkv_proj", "self_attn.o_proj"]})
    adapted = {name for name, _ in load(tmp_path, lora=fused).named_parameters() if "lora_A" in name}
    assert {name.split(".")[-4] for name in adapted} == {"qkv_proj", "o_proj"}
    with pytest.raises(PretrainedError, match="has no j_proj; its linear layers: q_proj"):
        load(backbone, lora=LORA.model_copy(update={"targets": ["o_proj", "j_proj"]}))


def test_a_tree_below_the_working_directory_can_be_moved(tmp_path, monkeypatch):
    make_backbone(tmp_path / "here" / "models" / "tiny")
    monkeypatch.chdir(tmp_path / "here")
    retriever = trained(load("models/tiny", lora=LORA))
    expected = retriever.encode(TEXTS)
    retriever.save("cells/a/retriever")
    assert (
        json.loads((tmp_path / "here/cells/a/retriever/retriever.json").read_text())["base"] == "../../../models/tiny"
    )
    monkeypatch.chdir("/")
    (tmp_path / "here").rename(tmp_path / "there")
    np.testing.assert_array_equal(Retriever.load(tmp_path / "there/cells/a/retriever").encode(TEXTS), expected)


def test_an_adapter_is_refused_without_the_backbone_that_it_was_trained_on(tmp_path):
    base = make_backbone(tmp_path / "base")
    write_manifest(base)
    load(base, lora=LORA).save(tmp_path / "retriever")
    Retriever.load(tmp_path / "retriever")
    make_backbone(base, seed=7)
    write_manifest(base)
    with pytest.raises(RetrieverError, match="trained on another model than is in .*base now"):
        Retriever.load(tmp_path / "retriever")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(RetrieverError, match="where there is no folder"):
        Retriever.load(tmp_path / "retriever")
    with pytest.raises(RetrieverError, match="not a saved retriever"):
        Retriever.load(tmp_path / "elsewhere")


def test_an_adapter_of_a_language_model_fits_it_with_its_head_and_without(lm, tmp_path):
    from peft import PeftModel

    def stock():
        return AutoModelForCausalLM.from_pretrained(lm)

    model = trained(add_lora(stock(), LORA, "CAUSAL_LM")).eval()
    save_adapter(model, tmp_path, str(lm))
    ids = torch.arange(2, 12)[None]
    with torch.no_grad():
        expected, before = model(ids).logits, stock().eval()(ids).logits
        hidden = model.get_decoder()(ids).last_hidden_state
        torch.testing.assert_close(load_adapter(stock(), tmp_path).eval()(ids).logits, expected)
        torch.testing.assert_close(load_adapter(stock().model, tmp_path).eval()(ids).last_hidden_state, hidden)
        torch.testing.assert_close(PeftModel.from_pretrained(stock(), tmp_path).eval()(ids).logits, expected)
    assert abs(expected - before).max() > 0.01


@pytest.mark.parametrize("headless", [False, True])
def test_an_adapter_whose_weights_would_be_passed_over_is_refused(lm, tmp_path, headless):
    """PEFT alone says nothing of weights that it does not find a place for."""
    model = trained(add_lora(AutoModelForCausalLM.from_pretrained(lm), LORA, "CAUSAL_LM"))
    save_adapter(model, tmp_path, str(lm))
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    stock = AutoModelForCausalLM.from_pretrained(lm)
    for renamed in (
        {name.replace("layers.1", "layers.9"): weight for name, weight in weights.items()},
        {name.replace("base_model.model.", "base_model.model.backbone."): weight for name, weight in weights.items()},
        {name: weight for name, weight in weights.items() if "layers.1" not in name},
    ):
        save_file(renamed, path, {"format": "pt"})
        with pytest.raises(RetrieverError, match="weights of the adapter and of its base do not match"):
            load_adapter(copy.deepcopy(stock.model if headless else stock), tmp_path)


def test_loading_says_nothing_but_refuses_a_model_that_lacks_weights(backbone, tmp_path, capfd):
    shutil.copytree(backbone, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file(
        weights | {"lm_head.weight": torch.zeros(400, 32)}, tmp_path / "model" / "model.safetensors", {"format": "pt"}
    )
    capfd.readouterr()
    load(tmp_path / "model")
    assert capfd.readouterr() == ("", "")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(RetrieverError, match="model: 1 weights of LlamaModel are missing: layers.1.mlp.up_proj.weight"):
        load(tmp_path / "model")


# --- other architectures


def test_encoders_and_other_decoders_serve_as_backbones(tmp_path):
    from transformers import BertConfig, BertModel, Qwen2Config, Qwen2Model

    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    for pooling, config, model in (
        ("eos", partial(Qwen2Config, num_key_value_heads=1), Qwen2Model),
        ("cls", BertConfig, BertModel),
    ):
        vocab_size = make_tokenizer(tmp_path / pooling) + 1  # the tokenizer of Qwen adds its pad token
        model(config(vocab_size=vocab_size, **size)).save_pretrained(tmp_path / pooling)
        retriever = load(tmp_path / pooling, pooling=pooling)
        one_by_one = np.concatenate([retriever.encode([text]) for text in TEXTS])
        np.testing.assert_allclose(retriever.encode(TEXTS), one_by_one, atol=1e-5)


def test_quickstart_import():
    import revela

    assert revela.Retriever is Retriever
    assert not hasattr(revela, "Retreiver")


def test_16_bits_are_packed_and_close(backbone, monkeypatch):
    """In bfloat16 no pad is computed, and embeddings are those of float32 but for rounding; float32 keeps its pads."""
    import revela.retriever

    packed, run = [], revela.retriever.run
    monkeypatch.setattr(revela.retriever, "run", lambda *given: packed.append(len(given)) or run(*given))
    texts = ["a", "b c d e f", "one two three four five six seven eight nine ten", "what is", "x " * 30]
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        retriever = Retriever.from_backbone(backbone, max_length=32, dtype=dtype).eval()
        found[dtype] = retriever.encode(texts, batch_tokens=64)
        assert bool(packed) == (dtype == torch.bfloat16)
    assert found[torch.bfloat16].dtype == np.float32
    assert (found[torch.float32] * found[torch.bfloat16]).sum(1).min() > 0.999


def test_what_can_be_packed(backbone):
    """A causal decoder, with adapters or without; no encoder, and none that caps what it attends to."""
    from transformers import BertConfig, BertModel, Gemma2Config, Gemma2Model

    from revela.method.packing import can_pack

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    assert can_pack(Retriever.from_backbone(backbone, max_length=32).backbone)
    assert can_pack(Retriever.from_backbone(backbone, max_length=32, lora=LORA).backbone)
    assert not can_pack(BertModel(BertConfig(vocab_size=99, **size)))
    assert not can_pack(Gemma2Model(Gemma2Config(vocab_size=99, **size)))


def test_weights_of_another_shape_are_one_line(tmp_path):
    folder = make_backbone(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 2 * config["intermediate_size"]}))
    with pytest.raises(RetrieverError, match="model: its weights have other shapes than its config.json says"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_adapters_give_the_same_embeddings(backbone, tmp_path, dtype):
    trained(load(backbone, lora=LORA)).save(tmp_path / "retriever")
    apart = Retriever.load(tmp_path / "retriever", dtype=dtype)
    merged = Retriever.load(tmp_path / "retriever", dtype=dtype).merge()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    np.testing.assert_allclose(merged.encode(TEXTS), apart.encode(TEXTS), atol=tolerance)
    start = load(backbone, dtype=dtype).encode(TEXTS)
    assert abs(merged.encode(TEXTS) - start).max() > 10 * abs(merged.encode(TEXTS) - apart.encode(TEXTS)).max()


def test_a_retriever_without_adapters_has_nothing_to_merge(backbone):
    retriever = load(backbone)
    assert retriever.merge() is retriever
