"""The last stage of a backbone, in which it learns to use another chunk, and the gate that asks whether it can."""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from tqdm import tqdm
from transformers import LlamaForCausalLM

from revela.errors import RevelaError
from revela.method import inbatch
from revela.tiny.optimizer import average_gradients
from revela.tiny.settings import Pretraining


class GateError(RevelaError):
    """The language model cannot use another chunk: training a retriever through it would teach nothing."""


class TwoStreamBatches:
    """Batches for the two streams: `group` documents x `chunks` consecutive chunks, padded, with their documents."""

    def __init__(self, documents: list[list[list[int]]], group: int, chunks: int, bos: int, eos: int):
        self.documents = [document for document in documents if len(document) >= chunks]
        self.group, self.chunks, self.bos, self.eos = group, chunks, bos, eos

    def draw(self, generator: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(input ids [B, L], attention mask [B, L], document of each chunk [B])."""
        texts = []
        for d in generator.choice(len(self.documents), self.group, replace=False):
            first = generator.integers(0, len(self.documents[d]) - self.chunks + 1)
            texts.extend([self.bos, *ids] for ids in self.documents[d][first : first + self.chunks])
        length = max(map(len, texts))
        ids = torch.full((len(texts), length), self.eos)
        mask = torch.zeros((len(texts), length), dtype=torch.long)
        for i, text in enumerate(texts):
            ids[i, : len(text)] = torch.tensor(text)
            mask[i, : len(text)] = 1
        return ids, mask, torch.arange(self.group).repeat_interleave(self.chunks)


def oracle(document: torch.Tensor) -> torch.Tensor:
    """Sim [B, B] that spreads each row over the other chunks of the same document; the document of each chunk is [B]."""
    same = (document[:, None] == document).float().fill_diagonal_(0)
    return same / same.sum(1, keepdim=True)


def uniform(document: torch.Tensor) -> torch.Tensor:
    """Sim [B, B] that spreads each row over all other chunks; the document of each chunk is [B]."""
    return torch.ones(len(document), len(document)).fill_diagonal_(0) / (len(document) - 1)


def wrong(document: torch.Tensor) -> torch.Tensor:
    """Sim [B, B] that spreads each row over the chunks of other documents; the document of each chunk is [B]."""
    other = (document[:, None] != document).float()
    return other / other.sum(1, keepdim=True)


def random_similarity(document: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    """A row-wise draw among same document, one of its chunks, uniform and noise; [B, B]."""
    size = len(document)
    noise = torch.from_numpy(generator.gumbel(size=(size, size))).float() / float(generator.choice([0.25, 1.0]))
    noise = noise.fill_diagonal_(-torch.inf).softmax(1)
    same = oracle(document)
    one = F.one_hot((same * torch.from_numpy(generator.random((size, size))).float()).argmax(1), size).float()
    choices = torch.stack([same, one, uniform(document), noise])
    return choices[torch.from_numpy(generator.integers(0, len(choices), size)), torch.arange(size)]


def two_stream_losses(
    lm: LlamaForCausalLM, ids: torch.Tensor, mask: torch.Tensor, sim: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean next-token loss (a scalar, in nats) of the e-stream and of the h-stream; ids and mask [B, L], sim [B, B]."""
    h, e = inbatch.hidden_states(lm, ids, mask, sim, value_norm=False, e_stream=True)
    predicted = mask[:, 1:].bool()
    labels = ids[:, 1:][predicted]
    return tuple(F.cross_entropy(lm.lm_head(hidden[:, :-1][predicted]), labels) for hidden in (e, h))


def adapt(lm: LlamaForCausalLM, batches: TwoStreamBatches, settings: Pretraining) -> list:
    """Teach the language model the two streams under random similarities; returns [step, e loss, h loss]."""
    rank = dist.get_rank()
    optimizer = torch.optim.AdamW(lm.parameters(), settings.two_stream_learning_rate, weight_decay=0)
    log = []
    for step in (progress := tqdm(range(settings.two_stream_steps), desc="two streams", disable=rank > 0)):
        for group in optimizer.param_groups:
            group["lr"] = settings.two_stream_learning_rate * (1 - step / settings.two_stream_steps)
        generator = np.random.default_rng([settings.seed, 1, step, rank])
        ids, mask, document = batches.draw(generator)
        e, h = two_stream_losses(lm, ids, mask, random_similarity(document, generator))
        (e + h).backward()
        average_gradients(lm)
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 10 == 0 or step == settings.two_stream_steps - 1:
            progress.set_postfix(e=f"{e.item():.3f}", h=f"{h.item():.3f}")
            log.append([step, round(e.item(), 4), round(h.item(), 4)])
    return log


@torch.no_grad()
def gate(lm: LlamaForCausalLM, batches: TwoStreamBatches, settings: Pretraining) -> dict[str, float]:
    """Losses on held-out documents under three similarities, and the gain uniform - oracle, in nats."""
    generator = np.random.default_rng(settings.seed)
    losses = []
    for _ in range(settings.gate_batches):
        ids, mask, document = batches.draw(generator)
        row = [two_stream_losses(lm, ids, mask, sim(document)) for sim in (oracle, uniform, wrong)]
        losses.append([row[0][0].item(), *(h.item() for _, h in row)])
    e, h_oracle, h_uniform, h_wrong = np.array(losses).T
    gain = h_uniform - h_oracle
    facts = {
        "e": e.mean(),
        "h_oracle": h_oracle.mean(),
        "h_uniform": h_uniform.mean(),
        "h_wrong": h_wrong.mean(),
        "gain": gain.mean(),
        "standard_error": gain.std(ddof=1) / len(gain) ** 0.5,
    }
    return {key: round(float(value), 4) for key, value in facts.items()}


def check_gate(facts: dict[str, float], settings: Pretraining) -> None:
    """Raises GateError unless the oracle's gain reaches `settings.gate_gain` and three standard errors."""
    if facts["gain"] < max(settings.gate_gain, 3 * facts["standard_error"]):
        raise GateError(
            f"h-loss with the oracle Sim is {facts['gain']} +- {facts['standard_error']} below that with the uniform one; "
            f"at least {settings.gate_gain} is needed: pretrain on more tokens"
        )
