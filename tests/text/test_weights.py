"""Pickles become safetensors with the same tensors, or are refused in one line; nothing of them is run."""

import json
import os
import pickle

import pytest
import torch
import transformers
from pickles import CONFIG, tiny_bert
from safetensors.torch import load_file
from transformers import AutoModel

from revela.files import sha256_file
from revela.text.weights import WeightsError, convert


@pytest.fixture
def published(tmp_path):
    model, weights = tiny_bert(tmp_path / "published")
    return tmp_path / "published", model, weights


def saved(folder, weights):
    torch.save(weights, folder / "pytorch_model.bin")


def split(folder, weights, parts=3):
    """The weights in several pickles with an index, as large models were published."""
    (folder / "pytorch_model.bin").unlink()
    names = list(weights)
    index = {}
    for part in range(parts):
        name = f"pytorch_model-{part + 1:05}-of-{parts:05}.bin"
        torch.save({key: weights[key].clone() for key in names[part::parts]}, folder / name)
        index |= dict.fromkeys(names[part::parts], name)
    content = {"metadata": {"total_size": 0}, "weight_map": index}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(content))


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_same_tensors(published, dtype, legacy):
    """By zip files and by those of torch before 1.6; a tied head and a transposed tensor included."""
    folder, _, weights = published
    weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    weights[name] = weights[name].T.contiguous().T  # the same numbers in another order in memory
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    hashes = convert(folder, folder)
    assert hashes == {"pytorch_model.bin": sha256_file(folder / "pytorch_model.bin")}
    same(load_file(folder / "model.safetensors"), weights)


def test_transformers_loads_what_was_written(published):
    folder, model, _ = published
    convert(folder, folder)
    (folder / "pytorch_model.bin").unlink()
    loaded = AutoModel.from_pretrained(folder, use_safetensors=True, add_pooling_layer=False).eval()
    tokens = torch.tensor([[3, 7, 11, 2]])
    expected = model.eval().bert(tokens).last_hidden_state
    torch.testing.assert_close(loaded(tokens).last_hidden_state, expected, rtol=0, atol=1e-6)


def test_several_pickles_with_an_index(published, tmp_path):
    folder, _, weights = published
    split(folder, weights)
    (tmp_path / "made").mkdir()
    for name in ("config.json", "pytorch_model.bin.index.json"):  # which is fetched with the configuration
        (tmp_path / "made" / name).write_bytes((folder / name).read_bytes())
    assert len(convert(folder, tmp_path / "made")) == 3
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    shards = [f"model-0000{part}-of-00003.safetensors" for part in (1, 2, 3)]
    assert names == ["config.json", *shards, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "made" / "model.safetensors.index.json").read_text())["weight_map"]
    found = {name: load_file(tmp_path / "made" / shard)[name] for name, shard in index.items()}
    same(found, weights)
    AutoModel.from_pretrained(tmp_path / "made", use_safetensors=True)


PUBLISHED = {
    "LaPraDoR": ("DistilBertForMaskedLM", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}),
    "Contriever": ("BertModel", {}),
    "UniXcoder": ("RobertaModel", {}),
    "GraphCodeBERT": ("RobertaForMaskedLM", {}),
    "BGE-M3": ("XLMRobertaModel", {}),
    "E5-Mistral": ("MistralModel", {"num_key_value_heads": 1}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_architectures_of_the_paper_s_encoders(tmp_path, name):
    """With and without a head, a pooler and the prefix of the base model in the names of weights."""
    kind, settings = PUBLISHED[name]
    made = getattr(transformers, kind)
    model = made(made.config_class(**CONFIG | {"pad_token_id": 0} | settings)).eval()
    model.config.save_pretrained(tmp_path)
    weights = dict(model.state_dict())
    if any(key.endswith("embeddings.word_embeddings.weight") for key in weights):
        [word] = [key for key in weights if key.endswith("embeddings.word_embeddings.weight")]
        weights[word.replace("word_embeddings.weight", "position_ids")] = torch.arange(12)[None]
    saved(tmp_path, weights)
    convert(tmp_path, tmp_path)
    same(load_file(tmp_path / "model.safetensors"), weights)
    loaded = AutoModel.from_pretrained(tmp_path, use_safetensors=True).eval()
    tokens = torch.tensor([[3, 7, 11, 2]])
    base = getattr(model, model.base_model_prefix, model)
    expected = base(tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    found = loaded(tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


class Code:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("zipped", [False, True])
def test_code_is_never_run(published, tmp_path, protocol, zipped):
    folder, _, weights = published
    content = {**weights, "bert.extra": Code(tmp_path / "run")}
    if zipped:
        torch.save(content, folder / "pytorch_model.bin", pickle_protocol=protocol)
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(
        WeightsError, match=r"pytorch_model\.bin: (needs code to be read \([\w.]+\)|not readable)"
    ) as error:
        convert(folder, folder)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def without(*names):
    return lambda f, w: saved(f, {name: value for name, value in w.items() if name not in names})


def plus(**more):
    return lambda f, w: saved(f, w | {name.replace("__", "."): value for name, value in more.items()})


NAME = "bert.embeddings.word_embeddings.weight"
INDEX = "pytorch_model.bin.index.json"


def index_of(content):
    def spoil(folder, weights):
        split(folder, weights)
        (folder / INDEX).write_text(json.dumps(content))

    return spoil


def lost_shard(folder, weights):
    split(folder, weights)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()


def other_shard(folder, weights):
    split(folder, weights)
    saved(folder, {"bert.encoder.other": torch.zeros(1)})
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00002-of-00003.bin")


FAULTS = {
    "missing": (without(NAME), "1 weights of the config's BertModel are missing, among them embeddings.word_emb"),
    "a layer more": (plus(bert__encoder__layer__2__output__dense__bias=torch.zeros(16)), "is no weight of the config"),
    "shape": (
        lambda f, w: saved(f, w | {NAME: torch.zeros(41, 16)}),
        r"word_embeddings\.weight has shape \[41, 16\], and the config's BertModel has \[40, 16\]",
    ),
    "no tensors": (lambda f, w: saved(f, [1, 2]), "holds no names with tensors, but list"),
    "nested": (lambda f, w: saved(f, {"model": w, "step": 3}), "'model' is not a dense tensor, but dict"),
    "sparse": (plus(bert__x=torch.eye(3).to_sparse()), "'bert.x' is not a dense tensor"),
    "cut": (
        lambda f, w: (f / "pytorch_model.bin").write_bytes((f / "pytorch_model.bin").read_bytes()[:-500]),
        r"pytorch_model\.bin: not readable as a pickle of tensors",
    ),
    "none": (lambda f, w: (f / "pytorch_model.bin").unlink(), r"there is no pytorch_model\.bin, and no pytorch_mod"),
    "no index": (index_of([1]), r"index\.json: no index of weights"),
    "elsewhere": (index_of({"weight_map": {"a": "../x.bin"}}), r"index\.json: names '\.\./x\.bin', which is not there"),
    "a shard lost": (lost_shard, "names 'pytorch_model-00002-of-00003.bin', which is not there"),
    "another shard": (
        other_shard,
        r"pytorch_model-00002-of-00003\.bin: differs from pytorch_model\.bin\.index\.json in ",
    ),
    "own code": (
        lambda f, w: (f / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "mine.C"}}'),
        r"config\.json: model_type 'mine' is none of transformers' own",
    ),
    "no config": (lambda f, w: (f / "config.json").unlink(), r"config\.json: .*No such file"),
    "a broken config": (lambda f, w: (f / "config.json").write_text("[1]"), r"config\.json: "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_converted_is_one_line(published, fault):
    folder, _, weights = published
    spoil, message = FAULTS[fault]
    spoil(folder, weights)
    with pytest.raises(WeightsError, match=message) as error:
        convert(folder, folder)
    assert "\n" not in str(error.value)
