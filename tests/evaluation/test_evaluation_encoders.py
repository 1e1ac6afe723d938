"""Encoders: kept on disk, adapters that others trained."""

import numpy as np
import pytest
from benchmark_folders import Encoder, task, write_coir

from revela.evaluation import EvaluationError
from revela.evaluation.search import search
from revela.evaluation.store import Store
from revela.evaluation.tasks import load_task
from revela.study.settings import Lora


def lengths(texts):
    return np.array([[len(text), 1.0] for text in texts], np.float32)


# --- the store


def through(store, texts, kind="passage"):
    return store.embed(store.prepare(texts, kind)).tolist()


def test_store_encodes_a_text_once(tmp_path):
    first = Encoder(lengths)
    store = Store(first, tmp_path / "store")
    texts = ["a", "bb", "ccc"]
    assert through(store, texts) == lengths(texts).tolist()
    assert through(store, ["dddd"]) == lengths(["dddd"]).tolist()

    second = Encoder(lambda texts: -lengths(texts))
    store = Store(second, tmp_path / "store")
    assert through(store, ["dddd", "new", "a", "ccc"]) == [[4, 1], [-3, -1], [1, 1], [3, 1]]
    assert second.calls == [["new"]]
    assert through(store, ["a"], "query") == [[-1, -1]]  # a query is no passage
    assert isinstance(store._vectors[0], np.memmap)


def test_store_of_a_job_that_was_killed(tmp_path):
    """Embeddings without their keys, or half written ones, do not count."""
    store = Store(Encoder(lengths), tmp_path)
    through(store, ["a"])
    [keys] = tmp_path.glob("*.keys.npy")
    keys.rename(tmp_path / f".partial-{keys.name}")
    encoder = Encoder(lengths)
    assert through(Store(encoder, tmp_path), ["a"]) == [[1, 1]]
    assert encoder.calls == [["a"]]


def test_two_jobs_that_store_the_same_texts(tmp_path, monkeypatch):
    """The second starts while the first is writing. Neither touches what the other has begun."""
    first, second, save = Store(Encoder(lengths), tmp_path), Store(Encoder(lengths), tmp_path), np.save

    def interrupted(file, array):
        monkeypatch.setattr(np, "save", save)
        through(second, ["a"])
        save(file, array)

    monkeypatch.setattr(np, "save", interrupted)
    assert through(first, ["a"]) == [[1, 1]]
    assert len(list(tmp_path.iterdir())) == 2
    encoder = Encoder(lengths)
    assert through(Store(encoder, tmp_path), ["a"]) == [[1, 1]] and not encoder.calls


def test_store_that_was_damaged(tmp_path):
    through(Store(Encoder(lengths), tmp_path), ["a"])
    [vectors] = (path for path in tmp_path.glob("*.npy") if not path.name.endswith(".keys.npy"))
    vectors.write_bytes(vectors.read_bytes()[:-1])
    with pytest.raises(EvaluationError, match=r"\.npy: embeddings that cannot be read"):
        Store(Encoder(lengths), tmp_path)


def test_two_query_sets_on_one_corpus(tmp_path):
    """The second task encodes only the document that the first did not have, and finds what it finds without a store."""
    rng = np.random.default_rng(0)
    vectors = {f"text {n}": rng.standard_normal(8).astype(np.float32) for n in range(31)}
    documents = {f"d{n}": ("", f"text {n}") for n in range(30)}
    write_coir(tmp_path, "fever", documents=documents, qrels={"q1": {"d1": 1}})
    write_coir(tmp_path, "climate", documents=documents | {"d30": ("", "text 30")}, qrels={"q2": {"d30": 1}})
    queries = rng.standard_normal((1, 8)).astype(np.float32)

    def encode(texts):
        return np.stack([vectors[text] for text in texts])

    found = {}
    for name, kept in (("fever", True), ("climate", True), ("climate", False)):
        encoder = Encoder(encode)
        store = Store(encoder, tmp_path / "store") if kept else encoder
        corpus = load_task(task("coir", name), tmp_path)[0].corpus
        found[name, kept] = list(search(queries, corpus, store, top_k=5, shard_documents=10)), encoder.texts
    assert found["climate", True][0] == found["climate", False][0]
    assert found["climate", True][1] == ["text 30"]


# --- adapters that others trained


@pytest.fixture(scope="module")
def adapter(backbone, tmp_path_factory):
    """A LoRA adapter as PEFT saves it, of the backbone with and without a head, and the embeddings it gives."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, AutoModelForCausalLM

    from revela.retriever import Retriever

    folder = tmp_path_factory.mktemp("adapters")
    for name, model in (("bare", AutoModel), ("head", AutoModelForCausalLM)):
        torch.manual_seed(0)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        wrapped = get_peft_model(model.from_pretrained(backbone), config)
        wrapped.save_pretrained(folder / name)
    retriever = Retriever.from_backbone(backbone, max_length=32)
    retriever.backbone = wrapped.get_base_model().model
    return folder, retriever.encode(["a cat", "dogs"])


@pytest.mark.parametrize("name", ["bare", "head"])
def test_released_adapter(adapter, backbone, tmp_path, name):
    from test_evaluation_systems import load, model, study

    folder, expected = adapter
    models = tmp_path / "results" / "resources" / "models"
    models.mkdir(parents=True)
    (models / "tiny").symlink_to(backbone)
    (models / "released").symlink_to(folder / name)
    row = model("released", "encoder", base="tiny", pooling="eos", similarity="cosine")
    ranker = load("released", study(tmp_path / "results", row, model("tiny", "backbone")))
    found = ranker.encoder.embed(ranker.encoder.prepare(["a cat", "dogs"], "passage"))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_adapter_of_another_model(backbone, tmp_path):
    """PEFT itself would leave the weights out, and the model would rank as it did before training."""
    from safetensors.torch import load_file, save_file

    from revela.retriever import Retriever, RetrieverError, load_adapter

    lora = Lora(rank=2, targets=["q_proj"])
    saved = Retriever.from_backbone(backbone, max_length=32, lora=lora)
    saved.backbone.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({name.replace("layers.1", "layers.9"): weight for name, weight in load_file(path).items()}, path)
    with pytest.raises(RetrieverError, match="4 weights of the adapter and of its base do not match: .*layers.9"):
        load_adapter(Retriever.from_backbone(backbone, max_length=32).backbone, tmp_path)
    with pytest.raises(RetrieverError, match="no adapter_config.json"):
        load_adapter(Retriever.from_backbone(backbone, max_length=32).backbone, tmp_path / "none")
