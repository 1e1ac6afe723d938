"""Datasets in miniature: the published names of files, formats and columns, and a few rows.

What is odd about the real ones is here as well: byte-identical documents (CosQA), judgements of documents that are not
there (ArguAna), quotation marks in ids (FEVER), an empty document (FiQA), scores of 0 and -1 and of type float, ids with
spaces and slashes and a document that stands twice (BRIGHT), a card that names more configs than files are wanted of.
"""

import gzip
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
from prose import WORDS, code, sentence, text
from repositories import DOMAINS, Repository

DOCUMENTS, QUERIES = 14, 4  # of a task


def write(repository: Repository, ref: str) -> dict[str, bytes]:
    """name -> content of each file of a dataset."""
    kind, *words = repository.content.split()
    dice = random.Random(f"{repository.name}@{ref if ref.startswith('mteb') else ''}")
    files = {name: content for name, content in CONTENTS[kind](repository, dice, *words)}
    if "README.md" in repository.names:
        files.setdefault("README.md", card([]))
    return files


def jsonl(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows, schema=None, huggingface=None) -> bytes:
    table, file = pa.Table.from_pylist(rows, schema=schema), io.BytesIO()
    if huggingface:  # as `datasets` writes its features
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": huggingface}})})
    pq.write_table(table, file)
    return file.getvalue()


def card(configs, licence="cc-by-sa-4.0") -> bytes:
    """A README.md with the configs [(name, {split: path})], or with none."""
    lines = ["---", f"license: {licence}"]
    lines += ["configs:"] * bool(configs)
    for name, splits in configs:
        lines += [f"- config_name: {name}", "  data_files:"]
        for split, path in splits.items():
            lines += [f"  - split: {split}", f"    path: {path}"]
    return "\n".join([*lines, "---", "", "# A data set in miniature", ""]).encode()


# --- text to train on


def wikipedia(repository, dice):
    """Passages of 100 words, those of an article one after another under one title."""
    rows = []
    for article in range(70):
        words = text(dice, 560).split()
        title = " ".join(dice.sample(WORDS, 2)).title() + ("" if article % 9 else ' "quoted"')
        for first in range(0, len(words), 100):
            rows.append({"docid": str(len(rows)), "title": title, "text": " ".join(words[first : first + 100])})
    yield "corpus.jsonl.gz", gzip.compress(jsonl(rows), mtime=0)
    yield "wikipedia-nq-corpus.py", b"import datasets\n\nraise SystemExit('a loading script must not run')\n"


def posts(repository, dice):
    for name in repository.names[1:]:
        rows = [{"text": f"{text(dice, 150)}\n\n{code(dice)}", "meta": {"id": row}} for row in range(12)]
        yield name, jsonl([*rows, {"text": "", "meta": {"id": 12}}])


def tutorials(repository, dice):
    rows = [{"title": f"Tutorial {row}", "text": f"{text(dice, 300)}\n\n{code(dice)}"} for row in range(24)]
    yield "online_tutorials.json", jsonl(rows)


def documentation(repository, dice):
    rows = [{"doc_id": f"lib.{row}", "doc_content": f"{code(dice)}\n{text(dice, 200)}"} for row in range(24)]
    yield "library_docs.json", json.dumps(rows, indent=1).encode()


def fineweb(repository, dice):
    for number, name in enumerate(repository.names[1:]):
        rows = [
            {
                "text": text(dice, 400),
                "id": f"<urn:uuid:{number}-{row}>",
                "dump": "CC-MAIN-2024-10",
                "url": "https://example.org",
                "file_path": "s3://commoncrawl",
                "language": "en",
                "language_score": 0.97,
                "token_count": 520,
                "score": 3.4,
                "int_score": 3,
            }
            for row in range(6)
        ]
        yield name, parquet(rows)
    yield "README.md", card([("default", {"train": "data/*/*"}), ("sample-10BT", {"train": "sample/10BT/*"})])


def batches(repository, dice, corpus):
    """Rows in the two forms that the authors' reader takes."""
    rows = [[text(dice, 80) if corpus == "wiki" else code(dice) for _ in range(16)] for _ in range(20)]
    sources = ("stackoverflow", "tutorials", "library-documentation")
    if corpus == "code":
        rows = [{"src": sources[number % 3], "text": row} for number, row in enumerate(rows)]
    yield "train.jsonl", jsonl(rows)


# --- benchmarks


def retrieval(dice, documents=DOCUMENTS, queries=QUERIES, of_code=False):
    """[(title, text)] of documents, and [(text, the numbers of its relevant documents)] of queries."""
    topics = [dice.sample(WORDS, 4) for _ in range(documents)]
    corpus = [
        (" ".join(topic[:2]) if number % 3 else "", code(dice, topic) if of_code else text(dice, 40, topic))
        for number, topic in enumerate(topics)
    ]
    asked = [(sentence(dice, topics[number]), [number]) for number in dice.sample(range(documents), queries)]
    return corpus, asked


COIR_ROW = pa.schema([(name, pa.string()) for name in ("_id", "partition", "text", "language", "title")])
COIR_INFO = pa.struct([("hash", pa.string()), ("starter_code", pa.string())])
COIR_QRELS = pa.schema([("query_id", pa.string()), ("corpus_id", pa.string()), ("score", pa.int64())])


def coir_task(task):
    """Documents and queries; of each query's partition there is one in the qrels of that name."""
    dice = random.Random(task)
    corpus, asked = retrieval(dice, DOCUMENTS, QUERIES + 2, of_code=True)
    if task in ("cosqa", "codetrans-dl"):  # byte-identical documents
        corpus += corpus[:4]
    if task == "apps":  # longer than any model reads
        corpus[0] = ("", "\n".join(code(dice) for _ in range(40)))
    partitions = ["test"] * QUERIES + ["train", "valid"]
    return corpus, asked, partitions


def coir(repository, dice, task):
    corpus, asked, partitions = coir_task(task)
    schema = COIR_ROW.append(pa.field("meta_information", COIR_INFO)) if task == "apps" else COIR_ROW
    info = {"meta_information": {"hash": "0", "starter_code": ""}} if task == "apps" else {}

    def row(prefix, number, partition, text, title=""):
        language = task.rpartition("-")[2]
        return {"_id": f"{prefix}{number}", "partition": partition, "text": text, "language": language, "title": title} | info  # fmt: skip

    rows = {
        "corpus": [row("d", number, "test", text, title) for number, (title, text) in enumerate(corpus)],
        "queries": [row("q", number, partitions[number], text) for number, (text, _) in enumerate(asked)],
    }
    yield from coir_files(repository, {split: parquet(found, schema) for split, found in rows.items()})


def coir_qrels(repository, dice, task):
    _, asked, partitions = coir_task(task)
    found = {split: [] for split in ("train", "valid", "test")}
    for number, (_, relevant) in enumerate(asked):
        found[partitions[number]] += [
            {"query_id": f"q{number}", "corpus_id": f"d{document}", "score": 1} for document in relevant
        ]
    yield from coir_files(repository, {split: parquet(rows, COIR_QRELS) for split, rows in found.items()})


def coir_files(repository, contents):
    splits = {}
    hashed = False
    for name in repository.names:
        if name.startswith("data/"):
            split = name.removeprefix("data/").partition("-")[0]
            hashed |= name.count("-") > 3
            splits[split] = f"data/{split}-*"
            yield name, contents[split]
    # cards of the time when names had hashes list no configs
    yield "README.md", card([] if hashed else [("default", splits)])


def beir(repository, dice, task, scores):
    corpus, asked = retrieval(dice)
    grades = [int(score) for score in scores.split(",")]
    ids = [f"{number}" if task != "fever" else f'"{title}"_({number})' for number, (title, _) in enumerate(corpus)]
    queries = [f"q{number}" for number in range(QUERIES)]
    relevant = [[ids[document] for document in found] for _, found in asked]
    if task == "arguana":  # a query is one of the documents, and five answers are not there
        corpus, asked = corpus + [("", asked[0][0])], asked + [(sentence(dice, WORDS[:4]), []) for _ in range(5)]
        ids, queries = [*ids, "q0"], [*queries, *(f"x{number}" for number in range(5))]
        relevant += [[f"gone-{number}"] for number in range(5)]
    if task == "fiqa":
        corpus.append(("", ""))
        ids.append("empty")
    rows = [{"_id": id, "title": title, "text": text} for id, (title, text) in zip(ids, corpus, strict=True)]
    yield "corpus.jsonl", jsonl(rows)
    # the queries of all splits in one file
    others = [{"_id": f"t{number}", "text": sentence(dice, WORDS[:4])} for number in range(2)]
    yield "queries.jsonl", jsonl([*({"_id": q, "text": t} for q, (t, _) in zip(queries, asked, strict=True)), *others])
    splits = {}
    for name in repository.names:
        if name.startswith("qrels/"):
            split = name.removeprefix("qrels/").removesuffix(".jsonl")
            splits[split] = name
            judged = [
                (q, document, max(grades)) for q, found in zip(queries, relevant, strict=True) for document in found
            ]
            judged += [(q, ids[(number + 5) % DOCUMENTS], grade) for number, q in enumerate(queries[:QUERIES]) for grade in grades[:-1]
                       if ids[(number + 5) % DOCUMENTS] not in relevant[number]][: QUERIES]  # fmt: skip
            if split != "test":
                judged = [("t0", ids[0], 1), ("t1", ids[1], 1)]
            number = float if task != "scifact" else int
            yield name, jsonl({"query-id": q, "corpus-id": d, "score": number(s)} for q, d, s in judged)
    yield (
        "README.md",
        card([("default", splits), ("corpus", {"corpus": "corpus.jsonl"}), ("queries", {"queries": "queries.jsonl"})]),
    )


def bright(repository, dice):
    strings = pa.list_(pa.string())
    examples = pa.schema(
        [
            *((name, pa.string()) for name in ("query", "reasoning", "id")),
            *((name, strings) for name in ("excluded_ids", "gold_ids_long", "gold_ids")),
            ("gold_answer", pa.string()),
        ]
    )
    for domain in DOMAINS.split(","):
        corpus, asked = retrieval(dice)
        ids = [f"{domain}/Some page_{number} part/{number}.txt" for number in range(len(corpus))]
        documents = [{"id": id, "content": content} for id, (_, content) in zip(ids, corpus, strict=True)]
        documents.append(documents[3])  # stands twice
        if domain == "biology":
            documents[0] |= {"content": text(dice, 2500)}
        excluding = domain in ("leetcode", "aops", "theoremqa_questions")
        rows = [
            {
                "query": query,
                "reasoning": "",
                "id": str(number),
                "excluded_ids": [ids[(found[0] + 1) % len(ids)]] if excluding else ["N/A"],
                "gold_ids_long": ["N/A"],
                "gold_ids": [ids[document] for document in found],
                "gold_answer": "N/A",
            }
            for number, (query, found) in enumerate(asked)
        ]
        yield f"documents/{domain}-00000-of-00001.parquet", parquet(documents)
        yield f"examples/{domain}-00000-of-00001.parquet", parquet(rows, examples)
    for name in repository.names:
        if not name.startswith(("documents/", "examples/", "README")):
            yield name, parquet([{"id": "1", "content": "not wanted"}])
    configs = ["documents", "examples", "long_documents", "Gemini-1.0_reason", "claude-3-opus_reason", "gpt4_reason"]
    yield (
        "README.md",
        card(
            [(name, {domain: f"{name}/{domain}-*" for domain in DOMAINS.split(",")}) for name in configs], "cc-by-4.0"
        ),
    )


# --- what lm-evaluation-harness reads

STRING, NUMBER = {"dtype": "string", "_type": "Value"}, {"dtype": "int32", "_type": "Value"}


def label(*names):
    return {"names": list(names), "_type": "ClassLabel"}


def lm(repository, dice, task, *configs):
    words = lambda: sentence(dice, WORDS[:6])
    entailment = label("entailment", "not_entailment")

    def rows(config):
        """Rows, and their features as `datasets` notes them, for those configs that are read."""
        for index in range(6):
            pick = dice.randrange(2)
            if task in ("arc", "openbookqa"):
                question = {"question_stem": words()} if task == "openbookqa" else {"question": words()}
                choices = {"text": [words() for _ in range(4)], "label": list("ABCD")}
                yield {"id": str(index), **question, "choices": choices, "answerKey": "ABCD"[index % 4]}
            elif task == "piqa":
                yield {"goal": words(), "sol1": words(), "sol2": words(), "label": pick}
            elif task == "winogrande":
                sentence = f"The {WORDS[0]} was near the {WORDS[1]} so _ fell."
                yield {"sentence": sentence, "option1": WORDS[0], "option2": WORDS[1], "answer": str(1 + pick)}
            elif config == "copa":
                question = ("cause", "effect")[pick]
                yield {"premise": words(), "choice1": words(), "choice2": words(), "question": question, "idx": index, "label": pick}  # fmt: skip
            elif config == "wic":
                a, b = words(), words()
                yield {"word": "holds", "sentence1": a, "sentence2": b, "start1": 0, "start2": 0, "end1": 3, "end2": 3, "idx": index, "label": pick}  # fmt: skip
            else:
                yield {"sentence1": words(), "sentence2": words(), "label": pick, "idx": index}

    def features(row, config):
        names = {"copa": label("choice1", "choice2"), "wic": label("False", "True")}.get(config, entailment)
        if isinstance(row["label"], int) and task != "piqa":
            return {name: names if name == "label" else NUMBER if isinstance(value, int) else STRING for name, value in row.items()}  # fmt: skip
        return None

    for name in repository.names:
        if name.endswith(".parquet"):
            config = name.partition("/")[0]
            found = list(rows(config))
            if "label" in found[0] and (known := features(found[0], config)):
                kinds = [(k, pa.int64() if k == "label" else pa.int32() if v is NUMBER else pa.string()) for k, v in known.items()]  # fmt: skip
                yield name, parquet(found, pa.schema(kinds), known)
            else:
                yield name, parquet(found)
    if configs:
        found = []
        for config in configs:
            splits = [
                name.split("/")[1].partition("-")[0] for name in repository.names if name.startswith(f"{config}/")
            ]
            found.append((config, {split: f"{config}/{split}-*" for split in splits}))
        yield "README.md", card(found)


CONTENTS = {
    "wikipedia": wikipedia,
    "posts": posts,
    "tutorials": tutorials,
    "documentation": documentation,
    "fineweb": fineweb,
    "batches": batches,
    "coir": coir,
    "coir-qrels": coir_qrels,
    "beir": beir,
    "bright": bright,
    "lm": lm,
}
