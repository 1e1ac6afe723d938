"""The demo's backbones: small Llama language models, pretrained here on the demo's corpus.

The paper starts from pretrained language models, and so does the demo. A retriever can learn from a language model only
as far as that model can use another chunk, which a plain small model cannot. So three things are added: contexts hold
consecutive chunks of one document; the model starts with a pair of heads that copy, and some of its rows can only be
predicted by copying; and a last stage runs the two streams of in-batch attention with random similarities. The gate then
asks, on held-out documents, whether the h-stream's loss is lower when Sim points to chunks of the same document.

Run by the rule `backbone` as ``torchrun --nproc_per_node N -m revela.demo.pretraining ...``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from revela.demo.settings import BackboneShape, Pretraining
from revela.errors import RevelaError
from revela.files import atomic_folder, sha256_file
from revela.method import inbatch
from revela.provenance import git_commit, write_manifest

LICENCE = "mit"  # of the weights, as of the project


class GateError(RevelaError):
    """The language model cannot use another chunk: training a retriever through it would teach nothing."""


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer for identifiers and prose.

    Words are split at whitespace, punctuation and camelCase humps, and lower-cased. Whitespace itself is no token, so
    `splitLines`, `split_lines` and "split lines" share their tokens.
    A text is encoded as BOS + tokens, as Llama's tokenizer does.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex("(?<=[a-z0-9])(?=[A-Z])"), " "), normalizers.Lowercase()]
    )
    words = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]"), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=2048
    )


def read_chunks(path: Path) -> list[list[str]]:
    """Chunks of each document of a `chunks.parquet`, documents of one file together and in their order."""
    table = pq.read_table(path, columns=["document", "chunks"]).sort_by("document")
    return table.column("chunks").to_pylist()


def contexts(documents: list[list[list[int]]], length: int, bos: int, eos: int) -> np.ndarray:
    """Rows of BOS, then consecutive chunks of one document with EOS after each; [rows, length] of token ids.

    The rest of a row is filled with the next document, so no token is a pad.
    """
    rows, row = [], [bos]
    for chunks in documents:
        for ids in chunks:
            row.extend([*ids, eos])
            if len(row) >= length:
                rows.append(row[:length])
                row = [bos]
    return np.array(rows, dtype=np.int32)


def repetition(generator: np.random.Generator, row: np.ndarray) -> np.ndarray:
    """A row [L] that repeats a stretch of the given row's tokens in random order: only copying predicts it.

    The tokens are those of a real row, because ids drawn from the whole vocabulary are seen too rarely to be copied.
    """
    span = int(generator.integers(8, len(row) // 2))
    stretch = generator.permutation(row[1:])[:span]
    return np.concatenate([row[:1], np.tile(stretch, len(row) // span + 1)])[: len(row)]


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by five Newton-Schulz steps (Jordan et al., 2024), in float32.

    torch.optim.Muon orthogonalises in bfloat16, which takes three times as long on a CPU without bfloat16 instructions.
    Parameters of one shape are handled as one stack.
    """

    def __init__(self, parameters, learning_rate: float, momentum: float = 0.95):
        super().__init__(parameters, {"lr": learning_rate, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        """Updates every matrix from its gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = []
                for parameter in parameters:
                    buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(torch.lerp(parameter.grad, buffer, group["momentum"]))
                scale = -group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for parameter, update in zip(parameters, _orthogonalise(torch.stack(updates)), strict=True):
                    parameter.add_(update, alpha=scale)


def _orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Each [m, n] of a stack with its singular values brought to about 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def language_model(shape: BackboneShape, context: int, vocabulary: int, bos: int, eos: int) -> LlamaForCausalLM:
    """An untrained Llama of the given shape, embeddings tied, that copies from the start: see `lay_copying_heads`."""
    lm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.heads,
            intermediate_size=shape.intermediate_size,
            attention_bias=True,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=True,
            bos_token_id=bos,
            eos_token_id=eos,
            pad_token_id=eos,
        )
    )
    lay_copying_heads(lm, context)
    return lm


@torch.no_grad()
def lay_copying_heads(lm: LlamaForCausalLM, context: int) -> None:
    """Lets a model start with the ability to copy, which a small one would take far longer to learn by itself.

    Two heads make an induction head (Olsson et al., 2022), laid into the weights as in mimetic initialisation
    (Trockman and Kolter, 2023): the first of layer 0 looks at the token before, through its biases under RoPE, and
    writes a projection of it where nothing else does; the first of layer 1 looks for the place after an earlier
    occurrence of the current token, and predicts what stood there. All other heads and MLPs write nothing at first.
    Embeddings have unit variance, so that these matrices are not small against Muon's steps.
    """
    hidden, size = lm.config.hidden_size, lm.config.hidden_size // lm.config.num_attention_heads
    before, copy = (layer.self_attn for layer in lm.model.layers[:2])
    torch.nn.init.normal_(lm.model.embed_tokens.weight)
    lm.model.norm.weight.fill_(10 / hidden)
    for layer in lm.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    basis = torch.linalg.qr(torch.randn(hidden, hidden)).Q
    own, previous = basis[:size], basis[size : 2 * size]

    # Under RoPE this query meets this key at the angle (distance - 1) * frequency in each pair of dimensions.
    frequencies = lm.model.rotary_emb.inv_freq
    for projection in (before.q_proj, before.k_proj, copy.q_proj, copy.k_proj):
        projection.weight[:size] = 0
    before.q_proj.bias[: size // 2] = 6.7
    before.k_proj.bias[:size] = 6.7 * torch.cat([frequencies.cos(), frequencies.sin()])
    before.v_proj.weight[:size] = own
    before.o_proj.weight[:, :size] = previous.T

    # Only pairs that hardly turn within a context can compare contents.
    still = (frequencies * context < 2).repeat(2).nonzero().flatten()
    strength = 13.5 / len(still) ** 0.5
    copy.q_proj.weight[still] = strength * own[: len(still)]
    copy.k_proj.weight[still] = strength * previous[: len(still)]
    copy.v_proj.weight[:size] = own
    copy.o_proj.weight[:, :size] = 3 * own.T


def pretrain(lm: LlamaForCausalLM, rows: np.ndarray, shape: BackboneShape, settings: Pretraining) -> list:
    """Next-token prediction over shuffled rows, data-parallel over the processes.

    Returns [step, loss of text, loss of repetitions] every twenty steps, of the first process's rows; None
    where it had no such row.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    length = settings.context
    matrices = [p for name, p in lm.named_parameters() if p.ndim == 2 and "embed" not in name]
    vectors = [p for p in lm.parameters() if p.ndim == 1]
    muon = Muon(matrices, settings.muon_learning_rate)
    adamw = torch.optim.AdamW(
        [
            {"params": vectors, "lr": settings.vector_learning_rate},
            {"params": [lm.model.embed_tokens.weight], "lr": settings.embedding_learning_rate},
        ],
        betas=(0.9, 0.95),
        weight_decay=0,
    )
    groups = [(group, group["lr"]) for group in (*muon.param_groups, *adamw.param_groups)]
    steps = shape.tokens // (settings.rows_per_step * length)
    order = np.random.default_rng(settings.seed).permutation(
        np.resize(np.arange(len(rows)), steps * settings.rows_per_step)
    )
    log, start = [], time.monotonic()
    for step in (progress := tqdm(range(steps), desc="pretraining", disable=rank > 0)):
        for group, top in groups:
            group["lr"] = top * min((step + 1) / settings.warmup_steps, (steps - step) / steps)
        generator = np.random.default_rng([settings.seed, step, rank])
        share = order[step * settings.rows_per_step : (step + 1) * settings.rows_per_step][rank::world]
        batch = rows[share]
        repeated = generator.random(len(batch)) < settings.repetitions
        for i in np.flatnonzero(repeated):
            batch[i] = repetition(generator, batch[i])
        losses = next_token_loss(lm, torch.from_numpy(batch).long()).mean(1)
        losses.mean().backward()
        average_gradients(lm)
        muon.step()
        adamw.step()
        lm.zero_grad(set_to_none=True)
        if step % 20 == 0 or step == steps - 1:
            speed = (step + 1) * settings.rows_per_step * length / (time.monotonic() - start)
            means = [losses[torch.from_numpy(kind)].mean().item() for kind in (~repeated, repeated)]
            progress.set_postfix(text=f"{means[0]:.3f}", repetitions=f"{means[1]:.3f}", tokens_per_s=f"{speed:.0f}")
            log.append([step, *(None if np.isnan(mean) else round(mean, 4) for mean in means)])
    return log


def next_token_loss(lm: LlamaForCausalLM, input_ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each next token, [rows, length - 1], of input_ids [rows, length]."""
    logits = lm(input_ids=input_ids, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), input_ids[:, 1:].flatten(), reduction="none").view_as(input_ids[:, 1:])


def average_gradients(module: torch.nn.Module) -> None:
    """Mean of the gradients over the processes, in one message."""
    if dist.get_world_size() > 1:
        gradients = [p.grad for p in module.parameters()]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


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


@torch.no_grad()
def held_out_losses(lm: LlamaForCausalLM, rows: np.ndarray, settings: Pretraining, bos: int) -> dict[str, float]:
    """Loss in nats early and late in held-out contexts, rows [n, L], and on the repeated part of random tokens."""
    length = settings.context
    loss = torch.cat([next_token_loss(lm, torch.from_numpy(part).long()) for part in np.array_split(rows, 8)])
    generator = np.random.default_rng(settings.seed)
    stretch = generator.integers(2, lm.config.vocab_size, (32, length // 2 - 1))
    repeated = np.concatenate([np.full((32, 1), bos), stretch, stretch], axis=1)
    copying = next_token_loss(lm, torch.from_numpy(repeated))[:, length // 2 :]
    return {
        "first_64": round(loss[:, :64].mean().item(), 4),
        "last_64": round(loss[:, -64:].mean().item(), 4),
        "repeated_random": round(copying.mean().item(), 4),
    }


def main() -> None:
    """Pretrains one backbone, as the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="YAML of revela.demo.settings.Pretraining")
    parser.add_argument("--model", required=True, help="a key of its models")
    parser.add_argument("--chunks", type=Path, required=True, help="chunks.parquet of the training corpus")
    parser.add_argument("--held-out", type=Path, required=True, help="chunks.parquet of held-out documents")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of the tokenizer")
    parser.add_argument("--output", type=Path, required=True, help="folder to write: config, bf16 weights, tokenizer")
    args = parser.parse_args()
    settings = Pretraining.model_validate(yaml.safe_load(args.config.read_text()))
    shape = settings.models[args.model]
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    dist.init_process_group("gloo")

    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.tokenizer)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    train, held_out = (
        encode(tokenizer, read_chunks(path), settings.chunk_tokens) for path in (args.chunks, args.held_out)
    )
    rows = contexts(train, settings.context, bos, eos)
    lm = language_model(shape, settings.context, len(tokenizer), bos, eos)
    start = time.monotonic()
    facts = {
        "parameters": sum(p.numel() for p in lm.parameters()),
        "corpus_tokens": int(rows.size),
        "tokens": shape.tokens,
        "pretraining": pretrain(lm, rows, shape, settings),
    }
    if dist.get_rank() == 0:  # so that a fault in what follows does not lose hours of work
        lm.save_pretrained(args.output.with_name(f".{args.model}-pretrained"))
    two_streams = [TwoStreamBatches(documents, 4, 4, bos, eos) for documents in (train, held_out)]
    facts["two_streams"] = adapt(lm, two_streams[0], settings)
    if dist.get_rank() == 0:
        lm.eval()
        facts["held_out"] = held_out_losses(lm, contexts(held_out, settings.context, bos, eos)[:256], settings, bos)
        facts["gate"] = gate(lm, two_streams[1], settings)
        if shape.gate:
            check_gate(facts["gate"], settings)
        facts["hours"] = round((time.monotonic() - start) / 3600, 2)
        with atomic_folder(args.output) as partial:
            lm.to(torch.bfloat16).save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            write_manifest(
                partial,
                model=args.model,
                licence=LICENCE,
                chunks_sha256=sha256_file(args.chunks),
                held_out_sha256=sha256_file(args.held_out),
                settings=settings.model_dump(mode="json"),
                commit=git_commit(),
                **facts,
            )
        print(json.dumps({key: facts[key] for key in ("parameters", "tokens", "held_out", "gate", "hours")}))
    dist.barrier()
    dist.destroy_process_group()


def encode(tokenizer: PreTrainedTokenizerFast, documents: list[list[str]], limit: int) -> list[list[list[int]]]:
    """Token ids of each document's chunks without special tokens, each chunk cut at `limit`."""
    chunks = [chunk for document in documents for chunk in document]
    ids = iter(tokenizer(chunks, add_special_tokens=False, truncation=True, max_length=limit)["input_ids"])
    return [list(islice(ids, len(document))) for document in documents]


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
