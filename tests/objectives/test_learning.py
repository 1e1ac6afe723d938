"""The retriever learns from the next-token loss alone, on a synthetic corpus where what it has to find is known.

A chunk is a key part of seven words, three of them its key and the rest noise, and four random values, each announced
by a marker. Of the sixteen chunks of a batch exactly one other has the same key and the same values. Each key has two
words and the two chunks use different ones, so nothing in their texts is alike but the values, of which a query, cut
to its first half, sees none. The values can only be predicted from the other chunk.
"""

import copy
import random

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from revela.objectives.revela import Revela
from revela.retriever import Retriever
from revela.study.settings import Training

BATCH, KEYS, NOISE, VALUES = 16, 16, 16, 32
STEPS = 100
WORDS = ["</s>", "query", "passage", "is"]
WORDS += [f"key{key}{form}" for key in range(KEYS) for form in "ab"]
WORDS += [f"noise{n}" for n in range(NOISE)] + [f"value{n}" for n in range(VALUES)]

SETTINGS = Training(
    query_prefix="query ",
    passage_prefix="passage ",
    retriever_max_length=20,
    lm_max_length=15,
    first_half=True,
    temperature=0.1,
    attention="dense",
)


def make_row(generator):
    """A batch of chunks, and for each the position of the one that belongs to it."""
    chunks = []
    for pair, key in enumerate(generator.sample(range(KEYS), BATCH // 2)):
        values = [f"value{generator.randrange(VALUES)}" for _ in range(4)]
        for form in "ab":
            words = [f"noise{generator.randrange(NOISE)}" for _ in range(7)]
            for place in generator.sample(range(7), 3):
                words[place] = f"key{key}{form}"
            words += [word for value in values for word in ("is", value)]
            chunks.append((pair, " ".join(words)))
    generator.shuffle(chunks)
    pairs = [pair for pair, _ in chunks]
    partner = [next(j for j, other in enumerate(pairs) if other == pair and j != i) for i, pair in enumerate(pairs)]
    return {"src": "synthetic", "text": [text for _, text in chunks]}, torch.tensor(partner)


def make_objective(settings):
    """Retriever and language model, both Llamas of width 64 that have seen nothing."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")

    def model(layers):
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(WORDS),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=layers,
                num_attention_heads=4,
                tie_word_embeddings=True,
                initializer_range=0.1,
            )
        )

    retriever = Retriever(
        model(1).model,
        tokenizer,
        query_prefix=settings.query_prefix,
        passage_prefix=settings.passage_prefix,
        max_length=settings.retriever_max_length,
    )
    return Revela(settings, retriever, model(2), tokenizer).train()


def train(objective, parameters, steps, seed):
    optimizer = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0)
    generator = random.Random(seed)
    for _ in range(steps):
        row, partner = make_row(generator)
        batch = objective.collate(row) | {"oracle": torch.eye(BATCH)[partner]}
        loss, _ = objective(batch)
        (loss / objective.count(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()


@torch.no_grad()
def top1(objective, batches=12):
    """How often the passage nearest to a query is its partner, among the other fifteen; on batches not trained on."""
    generator = random.Random(-1)
    hits = 0
    for _ in range(batches):
        row, partner = make_row(generator)
        hits += (Revela.similarity(objective, objective.collate(row)).argmax(1) == partner).sum().item()
    return hits / batches / BATCH


@pytest.fixture(scope="module")
def taught():
    """A language model that can use another chunk, as a pretrained one can: trained with the true Sim."""
    torch.set_num_threads(1)
    objective = make_objective(SETTINGS)
    objective.similarity = lambda batch: batch["oracle"]
    train(objective, objective.lm.parameters(), steps=STEPS, seed=0)
    return objective.lm.state_dict()


def learn(taught, **changes):
    objective = make_objective(SETTINGS.model_copy(update=changes))
    objective.lm.load_state_dict(copy.deepcopy(taught))
    return objective


def test_retrieval_is_learned_from_the_language_models_loss(taught):
    objective = learn(taught)
    assert top1(objective) < 0.2  # chance is 1/15
    train(objective, objective.parameters(), steps=STEPS, seed=1)
    assert top1(objective) > 0.8


def test_without_the_gradient_through_sim_nothing_is_learned(taught):
    objective = learn(taught)
    objective.similarity = lambda batch: Revela.similarity(objective, batch).detach()
    train(objective, objective.parameters(), steps=STEPS, seed=1)
    assert top1(objective) < 0.2


def test_with_sim_in_the_wrong_places_nothing_is_learned(taught):
    objective = learn(taught, similarity="shuffled")
    train(objective, objective.parameters(), steps=STEPS, seed=1)
    objective.settings = SETTINGS
    assert top1(objective) < 0.2
