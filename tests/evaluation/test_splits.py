"""Folders as the hub has them: the files of a split are those that `datasets` takes, or the folder is refused in one line."""

import random

import pyarrow.parquet as pq
import pytest
from benchmark_folders import (
    DOCUMENTS,
    published_cosqa,
    real_cosqa,
    tables,
    task,
    write_beir,
    write_bright,
    write_coir,
    write_jsonl,
    write_parquet,
)

from revela.evaluation.bm25 import BM25
from revela.evaluation.ranking import rankings
from revela.evaluation.scores import Evaluator
from revela.evaluation.splits import BenchmarkError, split_files
from revela.evaluation.tasks import load_task

HASH = "279bc28cd351fa67"
SCRIPT = "import datasets\n\nraise SystemExit('the code of a data set was run')\n"


def contents(part):
    return dict(part.corpus), part.queries, part.qrels, part.excluded


@pytest.fixture
def load(tmp_path, monkeypatch):
    """`datasets.load_dataset` on a local folder, with a cache of its own: split -> rows."""
    datasets = pytest.importorskip("datasets")

    def rows(folder, *config):
        loaded = datasets.load_dataset(str(folder), *config, cache_dir=str(tmp_path / "cache"))
        return {split: table.to_list() for split, table in loaded.items()}

    return rows


def read(files):
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def card(folder, *configs):
    """README.md with configs: (name, {split: path or paths})."""
    lines = ["---", "license: mit", "configs:"]
    for name, files in configs:
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, paths in files.items():
            lines += [f"  - split: {split}", "    path:"]
            lines += [f"    - {path}" for path in ([paths] if isinstance(paths, str) else paths)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text("\n".join([*lines, "---", "", "configs: of a data set", ""]))


# --- by name


@pytest.mark.parametrize("hashes", [[""], [f"-{HASH}"], ["", "", ""], [f"-{HASH}", "-6f0d3a0b4b1f0c55"]])
def test_coir_whatever_the_shards_are_called(tmp_path, load, hashes):
    expected = contents(load_task(task("coir"), write_coir(tmp_path / "plain"))[0])
    corpus, queries, qrels = tables()
    data = tmp_path / "hub" / "t-queries-corpus" / "data"
    for number, name in enumerate(hashes):
        rows = corpus[number * 4 // len(hashes) : (number + 1) * 4 // len(hashes)]
        write_parquet(data / f"corpus-{number:05}-of-{len(hashes):05}{name}.parquet", rows)
    write_parquet(data / f"queries-00000-of-00001{hashes[-1]}.parquet", queries)
    judged = tmp_path / "hub" / "t-qrels" / "data"
    write_parquet(judged / f"test-00000-of-00001{hashes[0]}.parquet", qrels)
    write_parquet(judged / f"train-00000-of-00001{hashes[0]}.parquet", qrels[:1])
    for folder in (data.parent, judged.parent):
        (folder / "README.md").write_text("---\ndataset_info:\n  dataset_size: 1\n---\n# No configs: here\n")
    assert contents(load_task(task("coir"), tmp_path / "hub")[0]) == expected
    theirs = load(data.parent)
    assert theirs["corpus"] == corpus
    assert [{"_id": row["_id"], "text": row["text"]} for row in theirs["queries"]] == queries  # and an empty title
    assert load(judged.parent)["test"] == qrels


@pytest.mark.parametrize("seed", range(12))
def test_a_folder_without_a_card_as_datasets_reads_it(tmp_path, load, seed):
    """Random splits with random numbers of shards, hashed or not, among files that are no data."""
    random.seed(seed)
    names = random.sample(["corpus", "queries", "test", "train", "valid", "corpus_2", "dev"], 3)
    data = tmp_path / "set" / "data"
    for name in names:
        number = random.randint(1, 12)
        for shard in random.sample(range(number), number):
            suffix = random.choice(["", f"-{random.getrandbits(64):016x}"])
            write_parquet(data / f"{name}-{shard:05}-of-{number:05}{suffix}.parquet", [{"x": f"{name} {shard}"}])
    (data.parent / "set.md").write_text("text")
    (data.parent / "dataset_dict.json").write_text("{}")
    assert {name: read(split_files(data.parent, name)) for name in names} == load(data.parent)
    assert split_files(data.parent, "other") == []


def test_a_script_beside_the_data_is_not_run(tmp_path):
    expected = contents(load_task(task("coir"), write_coir(tmp_path))[0])
    for name in ("t-queries-corpus", "t-qrels"):
        (tmp_path / name / f"{name}.py").write_text(SCRIPT)
    assert contents(load_task(task("coir"), tmp_path)[0]) == expected


def test_tables_in_subfolders(tmp_path):
    """As the hub's own conversion to parquet has them: a folder for the config, and one in it for the split."""
    corpus, queries, qrels = tables()
    write_parquet(tmp_path / "t" / "corpus" / "corpus" / "0000.parquet", corpus[:2])
    write_parquet(tmp_path / "t" / "corpus" / "corpus" / "0001.parquet", corpus[2:])
    write_parquet(tmp_path / "t" / "queries" / "queries" / "0000.parquet", queries)
    write_parquet(tmp_path / "t" / "qrels" / "test" / "0000.parquet", qrels)
    (tmp_path / "t" / "corpus" / "corpus" / "notes.txt").write_text("no table")
    (tmp_path / "zip").mkdir()
    expected = contents(load_task(task("beir"), write_beir(tmp_path / "zip"))[0])
    assert contents(load_task(task("beir"), tmp_path)[0]) == expected


def shards(*names):
    return lambda data: [(data / name).write_bytes((data / PLAIN).read_bytes()) for name in names]


PLAIN = "corpus-00000-of-00001.parquet"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / PLAIN).rename(d / f"corpus-00000-of-00002-{HASH}.parquet"), "1 of 2 shards are there"),
        (lambda d: (d / PLAIN).rename(d / "corpus-00001-of-00001.parquet"), "1 of 1 shards are there"),
        (shards(f"corpus-00000-of-00001-{HASH}.parquet"), "shard 00000 stands twice"),
        (shards("corpus-00001-of-00002.parquet"), "2 of 1 shards are there"),
    ],
)
def test_shards_that_do_not_belong_together(tmp_path, spoil, message):
    write_coir(tmp_path)
    spoil(tmp_path / "t-queries-corpus" / "data")
    with pytest.raises(BenchmarkError, match=message) as error:
        load_task(task("coir"), tmp_path)
    assert "\n" not in str(error.value)


# --- by the card


def mteb_folder(folder, *, configs=("default", "corpus", "queries")):
    """A set of BEIR as mteb packs it: queries of all splits in one file, judgements as JSON lines."""
    corpus, queries, qrels = tables()
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_jsonl(folder / "queries.jsonl", queries)
    hyphens = [{"query-id": r["query_id"], "corpus-id": r["corpus_id"], "score": float(r["score"])} for r in qrels]
    write_jsonl(folder / "qrels" / "test.jsonl", hyphens)
    write_jsonl(folder / "qrels" / "dev.jsonl", [{"query-id": "q3", "corpus-id": "d1", "score": 1.0}])
    files = {
        "default": {"dev": "qrels/dev.jsonl", "test": "qrels/test.jsonl"},
        "corpus": {"corpus": "corpus.jsonl"},
        "queries": {"queries": "queries.jsonl"},
    }
    card(folder, *((name, files[name]) for name in configs))
    return folder


@pytest.mark.parametrize("with_card", [True, False])
def test_beir_as_mteb_packs_it(tmp_path, load, with_card):
    expected = contents(load_task(task("beir"), write_beir(tmp_path / "zip"))[0])
    folder = mteb_folder(tmp_path / "mteb")
    if with_card:
        assert load(folder, "corpus")["corpus"] == tables()[0]
        assert load(folder, "queries")["queries"] == tables()[1]
        assert [row["score"] for row in load(folder)["test"]] == [row["score"] for row in tables()[2]]
    else:
        (folder / "README.md").unlink()
    assert contents(load_task(task("beir"), folder)[0]) == expected
    assert load_task(task("beir", split="dev"), folder)[0].qrels == {"q3": {"d1": 1}}


def test_the_card_decides_what_the_files_are_called(tmp_path, load):
    """Names that say nothing, in subfolders, with files beside them that no config names."""
    corpus, queries, qrels = tables()
    folder = tmp_path / "set"
    write_parquet(folder / "passages" / "a" / "part-1.parquet", corpus[:2])
    write_parquet(folder / "passages" / "b" / "part-0.parquet", corpus[2:])
    write_parquet(folder / "asked" / "all.parquet", queries)
    write_parquet(folder / "judged" / "eval-x.parquet", qrels)
    write_parquet(folder / "corpus.parquet", [{"_id": "old", "text": "of an older version"}])
    card(
        folder,
        ("corpus", {"train": "passages/**"}),
        ("queries", {"train": ["asked/*.parquet"]}),
        ("default", {"test": "judged/eval-*"}),
    )
    (tmp_path / "zip").mkdir()
    expected = contents(load_task(task("beir"), write_beir(tmp_path / "zip"))[0])
    assert contents(load_task(task("beir"), folder)[0]) == expected
    assert load(folder, "corpus")["train"] == read(split_files(folder, "corpus", ["corpus"]))


def test_bright_of_which_some_configs_were_fetched(tmp_path):
    """The card's first config is not there, and `datasets` alone could not tell the format from it."""
    content = {"documents": {"a/1": "x", "b c": "z"}, "queries": {"0": "first"}, "gold": {"0": ["b c"]}}
    folder = write_bright(tmp_path / "bright", **content, excluded={})
    expected = contents(load_task(task("bright"), folder)[0])
    for kind in ("documents", "examples"):
        (folder / kind / "t-00000-of-00001.parquet").rename(folder / kind / f"t-00000-of-00001-{HASH}.parquet")
    assert contents(load_task(task("bright"), folder)[0]) == expected  # no card
    configs = [(name, {"t": f"{name}/t-*"}) for name in ("Gemini-1.0_reason", "documents", "examples")]
    card(folder, *configs)
    assert contents(load_task(task("bright"), folder)[0]) == expected


def test_coir_with_a_card(tmp_path):
    expected = contents(load_task(task("coir"), write_coir(tmp_path))[0])
    splits = {"queries": "data/queries-*", "corpus": "data/corpus-*"}
    card(tmp_path / "t-queries-corpus", ("default", splits))
    card(tmp_path / "t-qrels", ("default", {"train": "data/train-*", "test": "data/test-*"}))  # train: not fetched
    assert contents(load_task(task("coir"), tmp_path)[0]) == expected


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: (f / "qrels/test.jsonl").unlink(),
            r"README\.md: names qrels/test\.jsonl for split 'test' of config 'default', and no such file is here",
        ),
        (lambda f: (f / "README.md").write_text("---\nconfigs: [a\nb: {\n---\n"), r"README\.md: broken metadata"),
        (lambda f: (f / "README.md").write_text("---\nconfigs:\n- name: x\n---\n"), r"broken metadata \(Each config"),
        (
            lambda f: (
                (f / "qrels/test.jsonl").rename(f / "qrels/test.arrow")
                and card(f, ("default", {"test": "qrels/test.*"}))
            ),
            "has no file .parquet, .jsonl",
        ),
        (
            lambda f: write_jsonl(f / "qrels/test.jsonl", [{"query-id": "q1", "corpus-id": "d1", "score": 0.5}]),
            r"test\.jsonl:1: score 0\.5 is no integer",
        ),
    ],
)
def test_faults_of_a_folder_with_a_card(tmp_path, spoil, message):
    folder = mteb_folder(tmp_path / "set")
    spoil(folder)
    with pytest.raises(BenchmarkError, match=message) as error:
        load_task(task("beir"), folder)
    assert "\n" not in str(error.value)


# --- rows that stand twice


def test_equal_rows_count_once(tmp_path):
    expected = contents(load_task(task("coir"), write_coir(tmp_path / "once"))[0])
    write_coir(tmp_path / "twice")
    corpus = tables()[0]
    twice = [corpus[1], *corpus, corpus[0], corpus[3]]
    write_parquet(tmp_path / "twice/t-queries-corpus/data/corpus-00000-of-00001.parquet", twice)
    [part] = load_task(task("coir"), tmp_path / "twice")
    assert contents(part) == expected and len(part.corpus) == len(DOCUMENTS)
    assert [str(id) for id in part.corpus.index.ids] == [id for id, _ in part.corpus] == ["d2", "d1", "d10", "d9"]
    assert list(part.corpus.unique_texts()) == [text for _, text in part.corpus]


def test_examples_of_bright_that_stand_twice_or_have_no_gold(tmp_path):
    content = {"documents": {"a": "x", "b": "y"}, "queries": {"0": "first", "1": "second", "2": "third"}}
    folder = write_bright(tmp_path, **content, gold={"0": ["a"], "1": ["b"], "2": []}, excluded={})
    path = folder / "examples" / "t-00000-of-00001.parquet"
    rows = read([path])
    write_parquet(path, [*rows, rows[0]])
    [part] = load_task(task("bright"), folder)
    assert part.qrels == {"0": {"a": 1}, "1": {"b": 1}} and part.queries == {"0": "first", "1": "second"}
    write_parquet(path, [*rows, rows[0] | {"gold_ids": ["b"]}])
    with pytest.raises(BenchmarkError, match="parquet:4: query '0' stands twice"):
        load_task(task("bright"), folder)


# --- the real one


def test_cosqa_with_a_published_name():
    """The same texts, judgements and scores as from the folder whose files have plain names."""
    published = published_cosqa()
    assert any(HASH in path.name for path in published.rglob("*.parquet"))
    found = []
    for folder in (published, real_cosqa()):
        [part] = load_task(task("coir", "cosqa"), folder)
        evaluator = Evaluator(part.qrels, top_k=1000)
        for query, documents in rankings(BM25(), [part], exclude=True, top_k=1000):
            evaluator.add(query, dict(documents))
        found.append((part.corpus.index.digest, part.queries, part.qrels, evaluator.means()))
    assert found[0] == found[1]
    assert len(part.corpus) == 6267 and len(part.queries) == 500
