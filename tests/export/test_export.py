"""Exports load in the software that they are for, and give the retriever's embeddings."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import TEXTS, make_backbone
from peft import LoraConfig, PeftModel, get_peft_model
from retrievers import LORA, PREFIXES, cell_folder, disturb, trained
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from revela.export import ExportError
from revela.export.adapters import export_released, released_retriever
from revela.export.card import front_matter
from revela.export.formats import append_eos, export_adapter, export_as, export_merged, export_sentence_transformer
from revela.export.hub import model_meta, push
from revela.export.readers import describe_model
from revela.provenance import CHECKOUT, write_manifest
from revela.retriever import Retriever, RetrieverError
from revela.study.source import PathSource
from revela.text.resources import fetch_model

LONG = " ".join(TEXTS * 3)


@pytest.fixture(scope="module", params=["adapter", "all weights", "adapter, BOS"])
def case(request, tmp_path_factory, backbone, lm):
    """(the retriever, its export for sentence-transformers), for tokenizers with and without BOS."""
    folder = tmp_path_factory.mktemp("export")
    base = lm if "BOS" in request.param else backbone
    trained(base, folder / "retriever", lora="adapter" in request.param)
    export_sentence_transformer(folder / "retriever", folder / "export")
    return Retriever.load(folder / "retriever", device="cpu"), folder / "export"


def test_sentence_transformers_gives_the_same_embeddings(case):
    retriever, export = case
    model = SentenceTransformer(str(export), device="cpu")
    texts = [*TEXTS, LONG, "", " spaces around ", "ünïcödé"]
    for kind, encode in (("query", model.encode_query), ("passage", model.encode_document)):
        assert np.abs(encode(texts) - retriever.encode(texts, kind=kind)).max() < 1e-5
    assert model.max_seq_length == 40
    assert model.prompts["query"] == "query: " and model.prompts["document"] == "passage: "


def test_readers_of_the_long_form_understand_the_folder(case):
    """What text-embeddings-inference, vLLM and releases before transformers 5 look up, by the names that they use."""
    retriever, export = case
    read = {path.relative_to(export).as_posix(): json.loads(path.read_text()) for path in export.rglob("*.json")}
    assert read["sentence_bert_config.json"]["max_seq_length"] == 40
    modes = {name for name, on in read["1_Pooling/config.json"].items() if name.startswith("pooling_mode_") and on}
    assert modes == {"pooling_mode_lasttoken"}
    assert {"pooling_mode_cls_token", "pooling_mode_mean_tokens"} <= read["1_Pooling/config.json"].keys()
    assert read["1_Pooling/config.json"]["word_embedding_dimension"] == 32
    kinds = ("Transformer", "Pooling", "Normalize")
    assert [one["type"] for one in read["modules.json"]] == [f"sentence_transformers.models.{kind}" for kind in kinds]
    assert read["config_sentence_transformers.json"]["prompts"] == {"query": "query: ", "document": "passage: "}
    assert read["tokenizer_config.json"]["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert read["config.json"]["rope_theta"] == retriever.backbone.config.rope_parameters["rope_theta"]


@pytest.mark.parametrize("scaled", [False, True])
def test_positions_are_described_for_old_and_new(scaled, tmp_path):
    """A rotary base that is not the default one, alone and with Llama 3's scaling, whichever form is read."""
    rotary = {"rope_theta": 500000.0, "rope_type": "default"}
    if scaled:
        rotary |= {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        rotary |= {"original_max_position_embeddings": 64}
    LlamaConfig(hidden_size=32, max_position_embeddings=512, rope_parameters=rotary).save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"extra_special_tokens": ["<x>"]}')
    describe_model(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == rotary
    assert written["rope_theta"] == 500000.0
    assert written.get("rope_scaling", {}).get("rope_type") == ("llama3" if scaled else None)
    for form in ({"rope_parameters"}, {"rope_theta", "rope_scaling"}):  # each by itself says the same
        other = {name: value for name, value in written.items() if name not in form}
        (tmp_path / "config.json").write_text(json.dumps(other))
        assert AutoConfig.from_pretrained(tmp_path).rope_parameters == rotary, form
    assert json.loads((tmp_path / "tokenizer_config.json").read_text()) == {"additional_special_tokens": ["<x>"]}


def test_every_text_ends_in_eos(case):
    retriever, export = case
    tokenizer = AutoTokenizer.from_pretrained(export)
    for text in (*TEXTS, LONG, ""):
        ids = tokenizer("query: " + text, truncation=True, max_length=40)["input_ids"]
        assert ids == retriever.tokenize([text], "query")["input_ids"][0].tolist()
        assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
    assert len(ids) < 40 and len(tokenizer(LONG, truncation=True, max_length=40)["input_ids"]) == 40


def test_the_project_loads_its_own_export(case):
    retriever, export = case
    again = Retriever.load(export, device="cpu")
    for kind in ("query", "passage"):
        assert (
            np.abs(again.encode([*TEXTS, LONG], kind=kind) - retriever.encode([*TEXTS, LONG], kind=kind)).max() < 1e-5
        )


def test_nothing_but_safetensors_is_written(case):
    _, export = case
    assert {path.suffix for path in export.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".md", ".jinja"}
    assert all("auto_map" not in path.read_text() for path in export.rglob("*.json"))


def test_an_earlier_export_is_replaced_and_nothing_else(tmp_path, backbone):
    trained(backbone, tmp_path / "retriever")
    (tmp_path / "empty").mkdir()
    for _ in range(2):
        export_merged(tmp_path / "retriever", tmp_path / "empty")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/README.md").write_text("---\ntags: [mine]\n---\n")
    for write in (export_merged, export_sentence_transformer, export_adapter):
        for place in ("notes", "notes/README.md", "retriever"):
            with pytest.raises(ExportError, match="is there already"):
                write(tmp_path / "retriever", tmp_path / place)
    assert (tmp_path / "notes/README.md").read_text() == "---\ntags: [mine]\n---\n"


def test_an_adapter_that_changes_nothing_is_not_exported(tmp_path, backbone):
    Retriever.from_backbone(backbone, max_length=40, lora=LORA).save(tmp_path / "retriever")
    with pytest.raises(ExportError, match="changes nothing"):
        export_sentence_transformer(tmp_path / "retriever", tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_bfloat16_halves_the_weights(tmp_path, backbone):
    trained(backbone, tmp_path / "retriever", lora=True)
    export_sentence_transformer(tmp_path / "retriever", tmp_path / "half", dtype="bfloat16")
    assert {tensor.dtype for tensor in load_file(tmp_path / "half/model.safetensors").values()} == {torch.bfloat16}


def test_merged_weights_are_those_of_base_and_adapter(tmp_path, backbone):
    trained(backbone, tmp_path / "retriever", lora=True)
    export_merged(tmp_path / "retriever", tmp_path / "merged")
    merged = AutoModel.from_pretrained(tmp_path / "merged")
    base = AutoModel.from_pretrained(backbone, dtype=torch.float32)
    ids = torch.arange(10)[None]
    expected = PeftModel.from_pretrained(base, tmp_path / "retriever")(ids).last_hidden_state
    assert torch.allclose(merged(ids).last_hidden_state, expected, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged")("x")["input_ids"]


def test_the_bare_adapter_names_the_hubs_model(tmp_path, backbone):
    base = shutil.copytree(backbone, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (base / "LICENSE").write_text("Apache License\n")
    write_manifest(base, hub={"owner/name": "0" * 40}, revision="main")
    trained(base, tmp_path / "retriever", lora=True)
    export_adapter(tmp_path / "retriever", tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == "owner/name"
    card = (tmp_path / "adapter/README.md").read_text()
    assert "base_model: owner/name" in card and "license: apache-2.0" in card and "0" * 40 in card
    assert (tmp_path / "adapter/LICENSE").read_text() == "Apache License\n"
    again = released_retriever(tmp_path / "adapter", base, **PREFIXES, max_length=40)
    ours = Retriever.load(tmp_path / "retriever", device="cpu")
    assert np.abs(again.encode(TEXTS, kind="query") - ours.encode(TEXTS, kind="query")).max() < 1e-6


def test_a_retriever_without_adapter_has_none_to_export(tmp_path, backbone):
    trained(backbone, tmp_path / "retriever", lora=False)
    with pytest.raises(ExportError, match="has no adapter"):
        export_adapter(tmp_path / "retriever", tmp_path / "adapter")


def test_the_card_of_a_cell(tmp_path, backbone):
    """Data, hyperparameters, scores, licence, lineage: from what stands beside the cell."""
    path = "revela/mine/tiny/tiny/bs4"
    cell = cell_folder(backbone, tmp_path, path, lora=True, start="revela/yours/tiny/tiny/bs4")
    dataset = tmp_path / "resources/datasets/mine"
    dataset.mkdir(parents=True)
    write_manifest(dataset, pattern="notes/**/*.md", count=3)
    for corpus, parts in (("mine", ["mine", "other"]), ("other", ["gone"])):  # `mine` is partly the corpus `other`
        counts = {"batches": 1200, "words": 54321, "sources": {"x": 1200}, "parts": {part: {} for part in parts}}
        (tmp_path / "corpora" / corpus / "bs4").mkdir(parents=True)
        (tmp_path / "corpora" / corpus / "bs4/batches.json").write_text(json.dumps(counts))
    scores = tmp_path / "coir.json"
    task = {"label": "CosQA", "metrics": {"nDCG@10": 0.4321}}
    protocol = {"query_prefix": "Q: ", "passage_prefix": "", "max_length": 512}
    scores.write_text(json.dumps({"benchmark": "coir", "protocol": protocol, "tasks": {"cosqa": task}}))
    export_sentence_transformer(cell, tmp_path / "export", scores=[scores])
    card = (tmp_path / "export/README.md").read_text()
    assert f"# {path}\n\nA dense retriever: `{backbone.name}` trained by Revela on raw text.\n" in card
    for said in (
        path, "trained from the weights of `revela/yours/tiny/tiny/bs4`", "1,200 batches of 4 chunks, 54,321 words", "local files `notes/**/*.md`", "`gone`: no longer beside", "| temperature | `0.05` |",
        "| coir | CosQA | 43.2 |", "On coir queries were preceded by `'Q: '`", "cut after 512 tokens", "1" * 40, "0" * 64, "2 steps", "not stated by its files", "@inproceedings{cai2026revela",
    ):  # fmt: skip
        assert said in card, said
    head = front_matter(tmp_path / "export/README.md")
    assert head["library_name"] == "sentence-transformers" and "license" not in head
    with pytest.raises(ExportError, match="is an export, which knows nothing of its training; name the trained cell"):
        export_merged(tmp_path / "export", tmp_path / "merged")
    assert head["model-index"][0]["results"][0]["metrics"] == [{"type": "ndcg_at_10", "value": 43.21}]


# --- adapters of others


@pytest.fixture(params=[AutoModel, AutoModelForCausalLM], ids=["without head", "with head"])
def released(request, tmp_path, backbone):
    """(folder of an adapter as peft itself saves it, the model that it is part of)."""
    model = request.param.from_pretrained(backbone, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    disturb(model)
    model.save_pretrained(tmp_path / "released")
    return tmp_path / "released", model.eval()


def test_an_adapter_by_others(released, backbone):
    folder, model = released
    retriever = released_retriever(folder, backbone)
    tokens = retriever.tokenize(TEXTS, "query")
    hidden = model(**tokens, output_hidden_states=True)
    last = hidden.hidden_states[-1] if "hidden_states" in hidden else hidden.last_hidden_state
    expected = last[torch.arange(len(TEXTS)), tokens["attention_mask"].sum(1) - 1]
    expected = torch.nn.functional.normalize(expected, dim=-1).detach().numpy()
    assert np.abs(retriever.encode(TEXTS, kind="query") - expected).max() < 1e-5


def test_the_card_of_an_adapter_by_others_names_both_and_their_licences(released, tmp_path, backbone, hub_copy):
    adapter = hub_copy(released[0], "them/adapter", "a" * 40, "---\nlicense: cc-by-nc-4.0\n---\n")
    base = hub_copy(
        backbone, "them/base", "b" * 40, "---\nlicense: other\nlicense_name: ours\nlicense_link: LICENSE\n---\n"
    )
    for folder in (adapter, base):
        (folder / "LICENSE").write_text(folder.name)
    reading = {"query_prefix": "q: ", "passage_prefix": "", "max_length": 30}
    export_released("sentence-transformers", adapter, base, tmp_path / "out", reading=reading)
    card, head = (tmp_path / "out/README.md").read_text(), front_matter(tmp_path / "out/README.md")
    assert {"a" * 40, "b" * 40} <= set(re.findall(r"`(\w{40})`", card))
    for said in ("# them/adapter\n", "licence is ours", "licence is cc-by-nc-4.0", "`'q: '`", "30 tokens"):
        assert said in card, said
    assert head["base_model"] == "them/base" and head["license_name"] == "ours" and head["license_link"] == "LICENSE"
    assert (tmp_path / "out/LICENSE").read_text() == base.name
    assert (tmp_path / "out/adapter-LICENSE").read_text() == adapter.name
    theirs = released_retriever(adapter, base, **reading)
    ours = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    for kind, encode in (("query", ours.encode_query), ("passage", ours.encode_document)):
        assert np.abs(encode([*TEXTS, LONG]) - theirs.encode([*TEXTS, LONG], kind=kind)).max() < 1e-5


@pytest.fixture
def hub_copy(tmp_path):
    """A folder as it is fetched from the hub."""

    def copy(folder, name, commit, card):
        made = shutil.copytree(folder, tmp_path / "hub" / name)
        (made / "README.md").write_text(card)
        write_manifest(made, hub={name: commit}, revision="main")
        return made

    return copy


@pytest.mark.parametrize("format", ["merged", "adapter", "sentence-transformers"])
@pytest.mark.parametrize("eos", ["by us", "by the tokenizer"])
def test_the_code_in_a_card_gives_the_retrievers_scores(tmp_path, backbone, format, eos):
    if eos == "by the tokenizer":
        base = shutil.copytree(backbone, tmp_path / "base")
        tokenizer = AutoTokenizer.from_pretrained(base)
        append_eos(tokenizer)
        tokenizer.save_pretrained(base)
        backbone = base
    trained(backbone, tmp_path / "retriever", lora=True, max_length=24)  # so that the code's texts are cut
    export_as(format, tmp_path / "retriever", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0].replace("path/or/name/of/this/model", str(tmp_path / "out"))
    said = {}
    exec(code, said)  # noqa: S102
    retriever = Retriever.load(tmp_path / "retriever", device="cpu")
    passages = retriever.encode(said["documents"], kind="passage")
    expected = retriever.encode(["sum of two numbers"], kind="query")[0] @ passages.T
    assert expected[0] != expected[1]
    assert np.abs(np.asarray(said["scores"], np.float32).ravel() - expected).max() < 1e-5


def test_an_adapter_of_another_model_is_refused(released, tmp_path):
    other = make_backbone(tmp_path / "other", hidden_size=48)
    with pytest.raises(RetrieverError, match="of its base"):
        released_retriever(released[0], other)
    deep = make_backbone(tmp_path / "deep", layers=3)
    with pytest.raises(RetrieverError, match="of its base"):
        released_retriever(released[0], deep)


def test_an_adapter_as_a_pickle_is_refused(released, backbone):
    folder, _ = released
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(RetrieverError, match="no adapter_model.safetensors"):
        released_retriever(folder, backbone)


# --- registries


def test_mteb_describes_and_loads_it(tmp_path, lm):
    pytest.importorskip("mteb")
    trained(lm, tmp_path / "retriever", lora=True)
    retriever, export = Retriever.load(tmp_path / "retriever", device="cpu"), tmp_path / "export"
    export_sentence_transformer(tmp_path / "retriever", export)
    meta = model_meta(export, str(export))
    assert (meta.embed_dim, meta.max_tokens, meta.similarity_fn_name) == (32, 40, "cosine")
    assert meta.n_parameters == sum(tensor.numel() for tensor in load_file(export / "model.safetensors").values())
    model = meta.load_model(device="cpu").model
    assert np.abs(model.encode_query(TEXTS) - retriever.encode(TEXTS, kind="query")).max() < 1e-5


def test_pushing_without_network_or_export_says_so(case, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    with pytest.raises(ExportError, match="is no export"):
        push(tmp_path, "me/model")
    with pytest.raises(ExportError, match="me/model: the hub did not take it"):
        push(case[1], "me/model")


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "torn",
        '{"benchmark": "b"}',
        '{"benchmark": "b", "tasks": {"t": {}}}',
        '{"tasks": {}, "protocol": {}}',
        None,
    ],
)
def test_scores_that_are_none_are_refused_before_anything_is_done(tmp_path, content):
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    with pytest.raises(ExportError, match="--scores .*s.json: (no scores; valid: a file of|cannot be read)"):
        export_merged(tmp_path / "absent", tmp_path / "out", scores=[tmp_path / "s.json"])


def test_what_evaluate_prints_goes_into_the_card_of_any_retriever(tmp_path, backbone):
    (tmp_path / "s.json").write_text(json.dumps({"benchmark": "notes", "metrics": {"nDCG@10": 0.5}, "queries": 3}))
    trained(backbone, tmp_path / "retriever", lora=True)
    export_adapter(tmp_path / "retriever", tmp_path / "out", scores=[tmp_path / "s.json"])
    card = (tmp_path / "out/README.md").read_text()
    assert (
        "| notes | notes | 50.0 |" in card
        and "sentence-transformers" not in front_matter(tmp_path / "out/README.md")["tags"]
    )


def test_the_licence_of_a_fetched_base_is_known_to_the_card_and_to_mteb(tmp_path, backbone):
    """Llama's is none that mteb has a name for."""
    base = shutil.copytree(backbone, tmp_path / "given")
    (base / "README.md").write_text("---\nlicense: llama3.2\n---\n")
    fetch_model("m", PathSource(str(base)), tmp_path / "base")
    trained(tmp_path / "base", tmp_path / "retriever", lora=True)
    export_sentence_transformer(tmp_path / "retriever", tmp_path / "out")
    assert front_matter(tmp_path / "out/README.md")["license"] == "llama3.2"
    assert model_meta(tmp_path / "out", str(tmp_path / "out")).license == "not specified"


def test_a_card_names_whom_packages_ask_to_be_named(tmp_path, backbone):
    """The text's authors and licence, and those of the base model."""
    shutil.copytree(backbone, tmp_path / "resources/models/tiny")
    facts = {"licence": "apache-2.0", "attribution": "A model by its makers."}
    write_manifest(tmp_path / "resources/models/tiny", package="model==2", **facts)
    cell = cell_folder(backbone, tmp_path, "revela/mine/tiny/tiny/bs4", lora=True)
    dataset = tmp_path / "resources/datasets/mine"
    dataset.mkdir(parents=True)
    write_manifest(dataset, package="text==1.0", licence="cc-by-sa-4.0", attribution="By the authors of its articles.")
    counts = {"batches": 12, "words": 345, "sources": {"mine": 12}, "parts": {"mine": {}}}
    (tmp_path / "corpora/mine/bs4").mkdir(parents=True)
    (tmp_path / "corpora/mine/bs4/batches.json").write_text(json.dumps(counts))
    export_merged(cell, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "- `mine`: text==1.0 from the package index, cc-by-sa-4.0. By the authors of its articles. (sha256 " in card
    assert "whose licence is apache-2.0;" in card
    assert "It was taken from the package model==2. A model by its makers." in card
    assert front_matter(tmp_path / "out/README.md")["license"] == "apache-2.0"


def test_several_licences_are_carried(tmp_path, backbone):
    base = shutil.copytree(backbone, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: [mit, apache-2.0]\n---\n")
    trained(base, tmp_path / "retriever", lora=True)
    export_sentence_transformer(tmp_path / "retriever", tmp_path / "out")
    assert "whose licence is mit, apache-2.0;" in (tmp_path / "out/README.md").read_text()
    assert model_meta(tmp_path / "out", str(tmp_path / "out")).license == "not specified"


def test_the_embedded_backbones_have_a_licence(tmp_path):
    source = CHECKOUT / "resources/backbones/tiny-1m"
    fetch_model("m", PathSource(str(source)), tmp_path / "base")
    trained(tmp_path / "base", tmp_path / "retriever", lora=True)
    export_adapter(tmp_path / "retriever", tmp_path / "out")
    assert front_matter(tmp_path / "out/README.md")["license"] == "mit"
