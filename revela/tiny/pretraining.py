"""Tiny's backbones: small Llama language models, pretrained here on tiny's corpus.

The paper starts from pretrained language models, and so does the scale tiny. A retriever can learn from a language model only
as far as that model can use another chunk, which a plain small model cannot. So three things are added: contexts hold
consecutive chunks of one document; the model starts with a pair of heads that copy, and some of its rows can only be
predicted by copying; and a last stage runs the two streams of in-batch attention with random similarities. The gate then
asks, on held-out documents, whether the h-stream's loss is lower when Sim points to chunks of the same document.

Run by the rule `backbone` as ``torchrun --nproc_per_node N -m revela.tiny.pretraining ...``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from revela.files import atomic_folder, sha256_file
from revela.provenance import git_commit, write_manifest
from revela.tiny.data import contexts, encode, read_chunks, repetition
from revela.tiny.optimizer import Muon, average_gradients
from revela.tiny.settings import BackboneShape, Pretraining
from revela.tiny.two_streams import TwoStreamBatches, adapt, check_gate, gate

LICENCE = "mit"  # of the weights, as of the project


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
    parser.add_argument("--config", type=Path, required=True, help="YAML of revela.tiny.settings.Pretraining")
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


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
