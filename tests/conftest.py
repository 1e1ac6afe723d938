"""Shared fixtures: tiny random language models with tokenizers made on the spot."""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import pytest

LONG = ["slurm", "workflow", "hub", "command", "training"]  # whose files take minutes

TEXTS = [
    "A retriever finds the passage that answers a query among many passages.",
    "Each chunk of a document is predicted from its own words and from the other chunks of the batch.",
    "The weight of another chunk is the similarity of its embedding to that of the query.",
    "def sort_values(values):\n    return sorted(values, key=lambda value: value.name)",
    "The gradient of the loss reaches the retriever through these weights alone, without any labels.",
    "import numpy as np\n\nmean = np.mean(values, axis=0)",
]


def make_tokenizer(folder, *, bos=False, eos=True, vocab=400):
    """A byte-level BPE tokenizer, which loses no text; `bos` puts <s> in front as Llama does. Returns its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=vocab, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    names = {"bos_token": "<s>"} | ({"eos_token": "</s>"} if eos else {})
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def make_backbone(folder, *, bos=False, eos=True, seed=0, hidden_size=32, layers=2):
    """A random Llama of two layers with grouped keys, and its tokenizer, as a Hugging Face folder. Returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=make_tokenizer(folder, bos=bos, eos=eos),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def pytest_collection_modifyitems(items):
    """What takes minutes begins first, so that at the end no process works long after the others."""
    items.sort(key=lambda item: LONG.index(folder) if (folder := item.path.parent.name) in LONG else len(LONG))


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """Folder of a tiny random Llama; the tokenizer knows EOS and adds nothing by itself."""
    return make_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def lm(tmp_path_factory):
    """Folder of another tiny random Llama, whose tokenizer puts BOS in front of every text."""
    return make_backbone(tmp_path_factory.mktemp("lm"), bos=True, seed=1)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A checkout in which the table, the figures and the anchors of `tests/small` were made. No test changes it.

    The first of pytest's processes that needs it makes it for all.
    """
    from checkout import Checkout
    from filelock import FileLock

    alone = "PYTEST_XDIST_WORKER" not in os.environ
    folder = (tmp_path_factory.getbasetemp() if alone else tmp_path_factory.getbasetemp().parent) / "finished"
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return Checkout.at(folder)
        checkout = Checkout(tmp_path_factory.mktemp("finished"))
        make_backbone(checkout.folder / "backbone", bos=True)
        small = ("--configfile", "tests/small/config.yaml", "--profile", "workflow/profiles/local", "--cores", "2")
        printed, status = checkout.snakemake("all", "anchors_page", *small)
        assert status == 0, printed
        checkout.folder.rename(folder)
        return Checkout.at(folder)
