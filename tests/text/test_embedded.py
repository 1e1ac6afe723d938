"""Text and benchmarks from installed packages, on a package made for the test."""

import json

import pyarrow.parquet as pq
import pytest

from revela.text import embedded

MODULE = '''# Copyright somebody
# Licence text

"""A module about trees."""


def plant(seed, soil):
    """Plant a seed in the soil.

    The seed is covered with soil and watered. It takes several weeks until anything
    can be seen above the ground, and some seeds never show at all.

    See Also
    --------
    harvest : What follows months later.
    unknown_name : Not in this package.

    Notes
    -----
    Nothing to note.
    """
    hole = soil.dig()
    hole.put(seed)
    hole.close()
    soil.water()
    return hole


class Orchard:
    """A collection of many planted trees."""

    def harvest(self, basket):
        """Pick all fruit that is ripe.

        Fruit is picked from each tree in turn and put into the basket, until the
        basket is full or no fruit is left on any of the trees.
        """
        for tree in self.trees:
            for fruit in tree.ripe():
                basket.add(fruit)
            tree.rest()
        return basket
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    files = {
        "forest/__init__.py": "",
        "forest/trees.py": MODULE,
        "forest/tests/test_trees.py": "def test(): pass",
        "forest/_version.py": "version = 'built here'",
        "forest/template.py": "def {{ name }}(): pass",
        "forest-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: forest\nVersion: 1.0\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    record = "".join(f"{name},,\n" for name in reversed(list(files)))
    (tmp_path / "forest-1.0.dist-info/RECORD").write_text(record)
    monkeypatch.syspath_prepend(tmp_path)
    return "forest"


def test_files_are_sorted_without_tests_and_generated_ones(package):
    assert [path for path, _ in embedded.python_files(package)] == [
        "forest/__init__.py",
        "forest/template.py",
        "forest/trees.py",
    ]


def test_a_missing_distribution_is_named():
    with pytest.raises(embedded.EmbeddedError, match="no-such-package is not installed"):
        embedded.python_files("no-such-package")


def test_functions_lose_their_docstring_and_nothing_else(package):
    plant, orchard, harvest = embedded.functions(package)
    assert [f.name for f in (plant, orchard, harvest)] == [
        "forest.trees.plant",
        "forest.trees.Orchard",
        "forest.trees.Orchard.harvest",
    ]
    assert plant.summary == "Plant a seed in the soil."
    assert plant.code.splitlines() == [
        "def plant(seed, soil):",
        "    hole = soil.dig()",
        "    hole.put(seed)",
        "    hole.close()",
        "    soil.water()",
        "    return hole",
    ]
    assert harvest.code.startswith("def harvest(self, basket):\n    for tree")
    assert "See Also" not in plant.description and "harvest" not in plant.description
    assert plant.description.startswith("The seed is covered") and plant.description.endswith("Nothing to note.")


def test_training_text_is_cut_at_definitions_and_leaves_out_the_licence(package, tmp_path):
    facts = embedded.write_dataset([package], "source", tmp_path)
    rows = {row["document"]: row["text"] for row in pq.read_table(tmp_path / "train.parquet").to_pylist()}
    names = ["forest/forest/template.py:0001", *(f"forest/forest/trees.py:000{i}" for i in range(4))]
    assert sorted(rows) == names
    trees = [rows[name] for name in names[1:]]
    assert "".join(trees) == MODULE.partition("\n\n")[2]
    assert [text.split("(")[0].split(":")[0] for text in trees[1:]] == ["def plant", "class Orchard", "    def harvest"]
    assert facts["packages"]["forest"]["version"] == "1.0" and facts["packages"]["forest"]["documents"] == 5
    again = embedded.write_dataset([package], "source", tmp_path)
    assert again == facts
    assert embedded.write_dataset([package], "docstrings", tmp_path)["sha256"] != facts["sha256"]
    [text] = pq.read_table(tmp_path / "train.parquet")["text"].to_pylist()
    assert "plant. Plant a seed" in text


def test_decorators_stay_with_their_definition():
    text = (
        "import os\n\n@cache\n@route(\n    '/',\n)\ndef a():\n    return 1\n\n\n"
        "class B:\n    @property\n    def b(self):\n        def c(): pass\n"
    )
    assert [part.split("\n")[0] for part in embedded._definitions(text)] == [
        "import os",
        "@cache",
        "class B:",
        "    @property",
    ]


def test_coir_layout(package, tmp_path):
    embedded.write_benchmark("coir", [package], tmp_path, queries=10, documents=10)
    corpus = pq.read_table(tmp_path / "docstring-code-queries-corpus/data/corpus-00000-of-00001.parquet").to_pylist()
    queries = pq.read_table(tmp_path / "docstring-code-queries-corpus/data/queries-00000-of-00001.parquet").to_pylist()
    qrels = pq.read_table(tmp_path / "docstring-code-qrels/data/test-00000-of-00001.parquet").to_pylist()
    texts = {row["_id"]: row["text"] for row in corpus}
    asked = {row["_id"]: row["text"] for row in queries}
    found = {asked[row["query_id"]]: texts[row["corpus_id"]].splitlines()[0] for row in qrels}
    assert found == {
        "Plant a seed in the soil.": "def plant(seed, soil):",
        "Pick all fruit that is ripe.": "def harvest(self, basket):",
    }
    assert not any(query in text for query in asked.values() for text in texts.values())


def test_beir_layout(package, tmp_path):
    embedded.write_benchmark("beir", [package], tmp_path, queries=1, documents=1)
    corpus = [json.loads(line) for line in (tmp_path / "forest/corpus.jsonl").read_text().splitlines()]
    queries = [json.loads(line) for line in (tmp_path / "forest/queries.jsonl").read_text().splitlines()]
    qrels = (tmp_path / "forest/qrels/test.tsv").read_text().splitlines()
    assert len(corpus) == len(queries) == 1
    assert qrels == ["query-id\tcorpus-id\tscore", f"{queries[0]['_id']}\t{corpus[0]['_id']}\t1"]


def test_bright_layout_excludes_the_query_itself(package, tmp_path):
    embedded.write_benchmark("bright", [package], tmp_path, queries=10, documents=10)
    [example] = pq.read_table(tmp_path / "examples/forest-00000-of-00001.parquet").to_pylist()
    assert example["gold_ids"] == ["forest.trees.Orchard.harvest"]
    assert example["excluded_ids"] == ["forest.trees.plant"]
    documents = pq.read_table(tmp_path / "documents/forest-00000-of-00001.parquet").to_pylist()
    assert {row["id"] for row in documents} >= {"forest.trees.plant", "forest.trees.Orchard.harvest"}


def test_an_unknown_layout_is_named(package, tmp_path):
    with pytest.raises(embedded.EmbeddedError, match="valid: coir, beir, bright"):
        embedded.write_benchmark("trec", [package], tmp_path, queries=1, documents=1)


@pytest.mark.parametrize("layout", ["coir", "beir", "bright"])
def test_tinys_benchmarks_are_the_same_each_time(layout, tmp_path):
    facts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        facts.append(embedded.write_benchmark(layout, ["networkx"], tmp_path / name, queries=20, documents=200))
    assert facts[0] == facts[1]
    assert all(counts == {"documents": 200, "queries": 20} for counts in facts[0]["tasks"].values())
