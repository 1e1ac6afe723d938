"""What is known of the 90 repositories of the hub that config.yaml and models.tsv name; miniatures are made of it.

Names of files were seen in listings of 2024 to 2026, unless `guess` says otherwise; nobody knows the `main` of today.
A hash in a file's name is a real one where it was seen, and made up where only its form is known.
"""

import hashlib
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Repository:
    """A repository of the hub.

    content: what is in its files: a key of `MODELS` or `DATASETS`, and words for it.
    files: the names on main; {a,b} and {1..4} as in a shell.
    main: the commit of main, or its first digits; what is not known is made up.
    refs: other reference -> its commit, and the files that it has besides those of main.
    lfs: files that are stored apart from git, though neither their suffix nor their size here says so.
    moved_from: the name that it had before, which the hub redirects.
    guess: what nobody has seen.
    """

    name: str
    content: str
    files: str
    main: str = ""
    refs: dict[str, tuple[str, str]] = field(default_factory=dict)
    lfs: str = ""
    gated: bool = False
    moved_from: str = ""
    guess: str = ""
    kind: str = "dataset"

    @property
    def names(self) -> list[str]:
        return [name for word in self.files.split() for name in expand(word)]

    @property
    def commits(self) -> dict[str, str]:
        """reference -> full commit."""
        known = {"main": self.main} | {ref: commit for ref, (commit, _) in self.refs.items()}
        return {ref: commit + sha1(f"{self.kind}s/{self.name}@{ref}")[len(commit) :] for ref, commit in known.items()}


def sha1(text: str | bytes) -> str:
    return hashlib.sha1(text.encode() if isinstance(text, str) else text).hexdigest()


def expand(word: str) -> list[str]:
    """The names that a shell would make of a word with braces.

    >>> expand("a{1..2}.{x,y}")
    ['a1.x', 'a1.y', 'a2.x', 'a2.y']
    """
    found = re.search(r"\{([^{}]*)\}", word)
    if not found:
        return [word]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    inner = map(str, range(int(numbers[1]), int(numbers[2]) + 1)) if numbers else found[1].split(",")
    return [name for part in inner for name in expand(word[: found.start()] + part + word[found.end() :])]


# --- models


def model(name, content, files, **facts):
    return Repository(name, content, files, kind="model", **facts)


LLAMA = (
    " LICENSE.txt README.md USE_POLICY.md {,generation_,tokenizer_}config.json {special_tokens_map,tokenizer}.json"
    " original/{consolidated.00.pth,params.json,tokenizer.model}"
)
ROBERTA = "README.md {,tokenizer_}config.json {special_tokens_map,vocab}.json merges.txt pytorch_model.bin "
BERT = "{,tokenizer_}config.json special_tokens_map.json vocab.txt "
SENTENCE = "README.md 1_Pooling/config.json {modules,sentence_bert_config}.json "
ADAPTER = "README.md adapter_config.json adapter_model.safetensors"
UNSEEN = "all names: nothing of it is stored anywhere"

MODELS = [
    model(
        "HuggingFaceTB/SmolLM2-135M",
        "smollm2",
        "README.md {,generation_,tokenizer_}config.json {special_tokens_map,tokenizer,vocab}.json merges.txt "
        "model.safetensors",
        main="4e53f736cbb20a9a0f56b4c4bf378d9f306ff915",
    ),
    model(
        "Qwen/Qwen2.5-0.5B",
        "qwen2",
        "LICENSE README.md {,generation_,tokenizer_}config.json {tokenizer,vocab}.json merges.txt model.safetensors",
        guess="no special_tokens_map.json",
    ),
    model("meta-llama/Llama-3.2-1B", "llama3 tied", "model.safetensors" + LLAMA, gated=True),
    model(
        "meta-llama/Llama-3.2-3B",
        "llama3 tied",
        "model-0000{1..2}-of-00002.safetensors model.safetensors.index.json" + LLAMA,
        gated=True,
        guess="the number of shards",
    ),
    model(
        "meta-llama/Llama-3.1-8B",
        "llama3",
        "model-0000{1..4}-of-00004.safetensors model.safetensors.index.json" + LLAMA,
        gated=True,
        guess="the number of shards",
    ),
    model("microsoft/unixcoder-base", "unixcoder", ROBERTA, refs={"refs/pr/5": ("88e7472", "model.safetensors")}),
    model(
        "microsoft/graphcodebert-base",
        "graphcodebert",
        ROBERTA + "flax_model.msgpack tf_model.h5",
        refs={"refs/pr/3": ("1cef3f755e8bcb1599e4b1f5487de0adb8573f21", "model.safetensors")},
    ),
    model(
        "facebook/contriever",
        "contriever",
        BERT + "README.md tokenizer.json pytorch_model.bin",
        refs={"refs/pr/1": ("970b380340c2e3fac6eba814e23e906e3635c8ae", "model.safetensors")},
    ),
    model("canwenxu/laprador", "distilbert", BERT + "README.md pytorch_model.bin", guess=UNSEEN),
    model(
        "Shitao/RetroMAE",
        "retromae",
        BERT + "pytorch_model.bin",
        main="b073144",
        refs={"refs/pr/1": ("4c37d3c", "model.safetensors")},
    ),
    model(
        "intfloat/e5-large-unsupervised",
        "bert",
        SENTENCE + BERT + "tokenizer.json model.safetensors pytorch_model.bin",
        main="15af928",
    ),
    model(
        "BAAI/bge-m3",
        "xlm-roberta",
        SENTENCE + "{,tokenizer_}config.json {config_sentence_transformers,special_tokens_map,tokenizer}.json "
        "sentencepiece.bpe.model pytorch_model.bin {colbert,sparse}_linear.pt imgs/bm25.jpg long.jpg "
        "onnx/{config.json,model.onnx}",
        main="5617a9f61b028005a4858fdac845db406aefb181",
        refs={"refs/pr/38": ("9d559b1", "model.safetensors")},
        lfs="tokenizer.json",
    ),
    model(
        "intfloat/e5-mistral-7b-instruct",
        "mistral",
        SENTENCE + "{,tokenizer_}config.json {added_tokens,config_sentence_transformers,special_tokens_map}.json "
        "tokenizer.{json,model} model-0000{1..2}-of-00002.safetensors model.safetensors.index.json "
        "pytorch_model-0000{1..2}-of-00002.bin pytorch_model.bin.index.json lora/adapter_{config.json,model.bin}",
        main="07163b72af1488142a360786df853f237b1a3ca1",
    ),
    model(
        "sentence-transformers/all-MiniLM-L6-v2",
        "bert",
        SENTENCE + BERT + "{config_sentence_transformers,data_config,tokenizer}.json model.safetensors "
        "pytorch_model.bin onnx/{config.json,model.onnx} openvino/openvino_model.{bin,xml} rust_model.ot tf_model.h5 "
        "train_script.py",
        main="8b3219a92973c328a8e22fadcfa821b5dc75636a",
    ),
    model(
        "intfloat/e5-base-v2",
        "bert",
        SENTENCE + BERT + "tokenizer.json model.safetensors pytorch_model.bin onnx/{config.json,model.onnx}",
        main="1c644c92ad3ba1efdad3f1451a637716616a20e8",
    ),
    model("trumancai/Revela-135M", "adapter HuggingFaceTB/SmolLM2-135M", ADAPTER, guess=UNSEEN),
    model("trumancai/Revela-code-135M", "adapter HuggingFaceTB/SmolLM2-135M", ADAPTER, guess=UNSEEN),
    model("trumancai/Revela-500M", "adapter Qwen/Qwen2.5-0.5B", ADAPTER, guess=UNSEEN),
    model(
        "trumancai/Revela-1b",
        "adapter meta-llama/Llama-3.2-1B",
        ADAPTER,
        main="41a2bd8968d2640e1e386861776c48bdaac1306a",
        guess=UNSEEN,
    ),
    model("trumancai/Revela-3b", "adapter meta-llama/Llama-3.2-3B", ADAPTER, guess=UNSEEN),
    model("trumancai/Revela-code-500M", "adapter Qwen/Qwen2.5-0.5B", ADAPTER, guess=UNSEEN),
    model("trumancai/Revela-code-1b", "adapter meta-llama/Llama-3.2-1B", ADAPTER, guess=UNSEEN),
    model(
        "trumancai/Revela-code-3b",
        "adapter meta-llama/Llama-3.2-3B",
        ADAPTER,
        main="974f4d8e7ff5d5439cc1863088948249f612c284",
        guess=UNSEEN,
    ),
]

# --- text to train on

TEXT = [
    Repository(
        "Tevatron/wikipedia-nq-corpus", "wikipedia", "corpus.jsonl.gz wikipedia-nq-corpus.py", main="56c6e24"
    ),  # docid, title, text; no card, and a script that `datasets` refuses
    Repository(
        "code-rag-bench/stackoverflow-posts",
        "posts",  # text, and columns that nobody has seen
        "README.md stackoverflow_000{0..9}.jsonl",
        main="04e05d86cb0ac467b29a5d87f4c56eac99dfc0a4",
        lfs="stackoverflow_000{0..9}.jsonl",
    ),
    Repository(
        "code-rag-bench/online-tutorials",
        "tutorials",  # title, text
        "README.md online_tutorials.json",
        main="095bb77",
        lfs="online_tutorials.json",
        guess="a list, or a row in each line",
    ),
    Repository(
        "code-rag-bench/library-documentation",
        "documentation",  # doc_id, doc_content
        "README.md library_docs.json",
        main="b530d3b5a25087d2074e731b76232db85b9e9107",
        lfs="library_docs.json",
        guess="a list, or a row in each line",
    ),
    Repository(
        "HuggingFaceFW/fineweb-edu",
        "fineweb",  # text, id, dump, url, ..: other folders hold terabytes
        "README.md sample/10BT/00{0..9}_00000.parquet sample/10BT/01{0..3}_00000.parquet "
        "data/CC-MAIN-2024-10/train-00000-of-00020.parquet",
    ),
    Repository("trumancai/revela_training_corpus", "batches wiki", "README.md train.jsonl", guess=UNSEEN),
    Repository("trumancai/revela_code_training_corpus", "batches code", "README.md train.jsonl", guess=UNSEEN),
]

# --- CoIR: {task}-queries-corpus with _id, partition, text, language, title; {task}-qrels with query_id, corpus_id, score


def coir(task, corpus="", queries="", train="", test="", mains=("", ""), guess=""):
    """The two repositories of a task: the hashes in the names of their files, and the commits of main."""
    tail = "data/{}-00000-of-00001{}.parquet"
    named = [("corpus", corpus), ("queries", queries)], [("train", train), ("test", test)]
    if task.startswith("CodeSearchNet"):
        named[1].insert(1, ("valid", ""))
    files = [
        " ".join(["README.md", *(tail.format(split, hash and f"-{hash}") for split, hash in splits)])
        for splits in named
    ]
    return [
        Repository(f"CoIR-Retrieval/{task}-queries-corpus", f"coir {task}", files[0], main=mains[0], guess=guess),
        Repository(f"CoIR-Retrieval/{task}-qrels", f"coir-qrels {task}", files[1], main=mains[1], guess=guess),
    ]


def made_up(seed):
    """A hash of the form that is in names of files."""
    return sha1(seed)[:16]


HASHES = "some of the hashes in the names"
LANGUAGES = ("python", "javascript", "go", "ruby", "java", "php")
CSN_MAINS = {
    "CodeSearchNet-python": ("d5885a7", ""),
    "CodeSearchNet-ccr-python": ("56e5c97", "eb05f2e"),
    "CodeSearchNet-ccr-go": ("", "66ebd255bcc11e4d350a92ed44ad2d2de3e19828"),  # older: the judgements of all languages
    "CodeSearchNet-ccr-php": ("", "ed454f2"),
}
COIR = [
    *coir("apps", "279bc28cd351fa67", "37cf369ef664f0a0", made_up("a"), made_up("b"), ("1ca5257", ""), HASHES),
    *coir("cosqa", "6ab5c5eda798a0f9", made_up("c"), made_up("d"), made_up("e"), ("d56676d", ""), HASHES),
    *coir("synthetic-text2sql", mains=("9a918a5", "")),
    *coir("codetrans-contest", made_up("f"), made_up("g"), mains=("", "981ff05"), guess=HASHES),
    *coir("codetrans-dl", "11c5cf794bd42584", made_up("h"), made_up("i"), made_up("j"), ("328b6b6", ""), HASHES),
    *coir("stackoverflow-qa", made_up("k"), made_up("l"), made_up("m"), "f525f2c32910493a", ("", "33d4a6f"), HASHES),
    *coir(
        "codefeedback-st",
        "7b566cd7959a7669",
        "55caf05ccc44940d",
        made_up("n"),
        made_up("o"),
        ("9ea30d0", ""),
        HASHES,
    ),
    *coir(
        "codefeedback-mt",
        "d995e30a895e156e",
        made_up("p"),
        made_up("q"),
        "5b7ed2d43708c995",
        ("ef78e2c", "a81bd47"),
        HASHES,
    ),
]
for task in [f"CodeSearchNet{ccr}-{language}" for ccr in ("", "-ccr") for language in LANGUAGES]:
    COIR += coir(task, mains=CSN_MAINS.get(task, ("", "")))

# --- BEIR as mteb packs it: _id, title, text; _id, text; query-id, corpus-id, score. JSON lines all of them


def beir(name, main, splits, lfs="corpus.jsonl", scores="1"):
    files = "README.md corpus.jsonl queries.jsonl " + " ".join(f"qrels/{split}.jsonl" for split in splits.split())
    return Repository(f"mteb/{name}", f"beir {name} {scores}", files, main=main, lfs=lfs)


BEIR = [
    beir("arguana", "c22ab2a51041ffd869aaddef7af8d8215647e41a", "test"),
    beir("climate-fever", "47f2ac6acb640fc46020b02a5b59fdda04d39380", "test"),
    beir("dbpedia", "c0f706b76e590d620bd6618b3ca8efdd34e2d659", "dev test", scores="0,1,2"),
    beir("fever", "bea83ef9e8fb933d90a2f1d5515737465d613e12", "train dev test", lfs="corpus.jsonl queries.jsonl"),
    beir("fiqa", "27a168819829fe9bcd655c2df245fb19452e8e06", "train dev test"),
    beir("hotpotqa", "ab518f4d6fcca38d87c25209f94beba119d02014", "train dev test", lfs="corpus.jsonl queries.jsonl"),
    beir("nfcorpus", "ec0fa4fe99da2ff19ca1214b7966684033a58814", "train dev test", lfs="", scores="1,2"),
    beir("nq", "b774495ed302d8c44a3a7ea25c90dbce03968f31", "test"),
    beir("quora", "e4e08e0b7dbe3c8700f0daef558ff32256715259", "dev test"),
    beir("scidocs", "f8c2fcf00f625baaa80f62ec5bd9e1fff3b8ae88", "test", scores="0,1"),
    beir("scifact", "0228b52cf27578f30900b9e5271d331663a030d7", "train test", lfs=""),
    beir("trec-covid", "bb9466bac8153a0349341eb1b22e06409e78ef4e", "test", scores="-1,0,1,2"),
    beir("touche2020", "a34f9a33db75fa0cbb21bb5cfc3dae8dc8bec93f", "test", scores="0,1,2"),
]

# --- BRIGHT, and what lm-evaluation-harness reads

DOMAINS = (
    "biology,earth_science,economics,psychology,robotics,stackoverflow,sustainable_living,pony,leetcode,aops,"
    "theoremqa_theorems,theoremqa_questions"
)
SPLITS = "{train,validation,test}-00000-of-00001.parquet"
OTHERS = [
    Repository(
        "xlangai/BRIGHT",
        "bright",  # id, content; query, reasoning, id, excluded_ids, gold_ids_long, gold_ids, gold_answer
        f"README.md {{documents,examples}}/{{{DOMAINS}}}-00000-of-00001.parquet "
        "long_documents/{biology,pony}-00000-of-00001.parquet "
        "{Gemini-1.0,claude-3-opus,gpt4,grit,llama3-70b}_reason/biology-00000-of-00001.parquet",
        main="3ee09c7",
        refs={
            "autumn-2024": ("95d97a196787d9067ffa99df0499fe639b011a92", ""),
            "mteb-1.14.22": ("a75a0eb483f6a5233a6efc2d63d71540a4443dfb", ""),
        },
        moved_from="xlang-ai/BRIGHT",
        guess="which domains long_documents and *_reason have",
    ),
    Repository(
        "allenai/ai2_arc",
        "lm arc ARC-Challenge ARC-Easy",
        f"README.md {{ARC-Challenge,ARC-Easy}}/{SPLITS}",
        main="210d026faf9955653af8916fad021475a3f00453",
    ),
    Repository(
        "aps/super_glue",
        "lm super_glue boolq cb copa multirc record rte wic wsc wsc.fixed axb axg",
        f"README.md {{boolq,cb,copa,multirc,record,rte,wic,wsc,wsc.fixed}}/{SPLITS} "
        "{axb,axg}/test-00000-of-00001.parquet",
        main="3de24cf",
        moved_from="super_glue",
        guess="the order of the configs in the card",
    ),
    Repository(
        "allenai/openbookqa",
        "lm openbookqa additional main",
        f"README.md {{additional,main}}/{SPLITS}",
        main="388097e",
        moved_from="openbookqa",
    ),
    Repository("baber/piqa", "lm piqa", "piqa_{train,validation,test}.parquet", main="142f6d7"),  # no card
    Repository(
        "nyu-mll/glue",
        "lm glue ax cola mnli mnli_matched mnli_mismatched mrpc qnli qqp rte sst2 stsb wnli",
        f"README.md ax/test-00000-of-00001.parquet {{cola,mnli,mrpc,qnli,qqp,rte,sst2,stsb,wnli}}/{SPLITS} "
        "mnli_{matched,mismatched}/{validation,test}-00000-of-00001.parquet",
        main="bcdcba7",
        moved_from="glue",
    ),
    Repository(
        "allenai/winogrande",
        "lm winogrande winogrande_xs winogrande_s winogrande_m winogrande_l winogrande_xl winogrande_debiased",
        f"README.md winogrande_{{xs,s,m,l,xl,debiased}}/{SPLITS}",
        moved_from="winogrande",
        guess="the layout of main",
    ),
]

REPOSITORIES = {
    f"{repository.kind}s/{repository.name}": repository for repository in [*MODELS, *TEXT, *COIR, *BEIR, *OTHERS]
}
