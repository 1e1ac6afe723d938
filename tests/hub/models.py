"""Models in miniature: real architectures with tiny random weights, and tokenizers of the real kinds.

Keys, dtypes, shards and formats of the weights are those that were published. What nobody reads (other runtimes, images)
is a few bytes.
"""

import io
import json
import random
import struct
import zlib

import torch
from prose import code, text
from repositories import REPOSITORIES, Repository
from safetensors.torch import save
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as kinds

HIDDEN, LAYERS, HEADS, KEYS = 32, 2, 4, 2
UNREAD = (".h5", ".msgpack", ".ot", ".onnx", ".jpg", ".pth", ".pt", ".bin", ".xml", ".model", ".py")


def write(repository: Repository, ref: str) -> dict[str, bytes]:
    """name -> content of each file of a model, at a reference."""
    names = [*repository.names, *repository.refs.get(ref, ("", ""))[1].split()]
    kind, *words = repository.content.split()
    if kind == "adapter":
        return adapter(words[0])
    config, tokenizer = KINDS[kind]
    settings = config | ({"tie_word_embeddings": "tied" in words} if kind == "llama3" else {})
    files = tokenizer()
    settings["vocab_size"] = len(json.loads(files[VOCABULARY])) + settings.pop("_unused", 0)
    name_ids(settings, files)
    weights = published(kind, settings, repository.name)
    files |= {"config.json": as_json(settings), "generation_config.json": as_json({"_from_model_config": True})}
    files |= {"README.md": b"---\nlicense: mit\n---\n\n# A model in miniature\n", "data_config.json": b"[]"}
    files |= sentence_transformers(kind) | {"added_tokens.json": b"{}", "onnx/config.json": as_json(settings)}
    files |= {"original/params.json": b"{}", "lora/adapter_config.json": as_json({"peft_type": "LORA", "r": 16})}
    files |= {name: b"The licence.\n" for name in ("LICENSE", "LICENSE.txt", "USE_POLICY.md")}
    for suffix, write_shard in (("safetensors", as_safetensors), ("bin", as_pickle)):
        files |= shards([name for name in names if is_weight(name, suffix)], weights, suffix, write_shard)
    found = {name: files.get(name) for name in names}
    for name, content in found.items():
        if content is None:
            assert name.endswith(UNREAD), f"{repository.name}: nothing makes {name}"
            found[name] = b"not to be read: " + name.encode()
    return found


def name_ids(settings: dict, files: dict[str, bytes]) -> None:
    """Ids of BOS and EOS in config.json are those of this tokenizer, where the published one has any."""
    vocabulary, tokens = (json.loads(files[name]) for name in (VOCABULARY, "tokenizer_config.json"))
    for key in ("bos", "eos"):
        if f"{key}_token_id" in settings:
            token = tokens.get(f"{key}_token") or tokens.get("eos_token") or ROBERTA_SPECIAL[f"{key}_token"]
            settings[f"{key}_token_id"] = vocabulary[token]


def as_json(value) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


# --- tokenizers: the published files of one, by name

VOCABULARY = "\0vocabulary"  # token -> id, for the size of the embeddings
GPT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def lines():
    dice = random.Random("tokenizers")
    return [text(dice, 60) if number % 3 else code(dice) for number in range(200)] + [
        "query: passage: Query: Passage: "
    ]


def trained(model, trainer, **parts):
    tokenizer = Tokenizer(model)
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.train_from_iterator(lines(), trainer)
    return tokenizer


def files_of(tokenizer, *, config, special, json_file=True, split=False, pairs=None):
    """tokenizer.json, tokenizer_config.json, special_tokens_map.json, and vocab.json with merges.txt."""
    content = json.loads(tokenizer.to_str())
    files = {VOCABULARY: as_json(tokenizer.get_vocab()), "tokenizer_config.json": as_json(config)}
    files["special_tokens_map.json"] = as_json(special)
    if json_file:
        files["tokenizer.json"] = as_json(content)
    if split:
        files["vocab.json"] = json.dumps(content["model"]["vocab"], ensure_ascii=False).encode()
        merges = (pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"])
        files["merges.txt"] = "\n".join(["#version: 0.2", *merges, ""]).encode()
    return files


def byte_bpe(special, pre=None, size=700, **parts):
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return trained(
        kinds.BPE(),
        trainer,
        pre_tokenizer=pre or pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoder=decoders.ByteLevel(),
        **parts,
    )


def gpt_split(digits="{1,3}"):
    """Llama 3 takes three digits for a word, Qwen 2 one."""
    split = pre_tokenizers.Split(Regex(GPT.replace("{1,3}", digits)), "isolated", invert=False)
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    """SmolLM2: <|endoftext|> is BOS, EOS and UNK, and is put nowhere."""
    end = "<|endoftext|>"
    pre = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer = byte_bpe([end, "<|im_start|>", "<|im_end|>", "<repo_name>"], pre)
    special = {"bos_token": end, "eos_token": end, "unk_token": end}
    config = {"add_prefix_space": False, "clean_up_tokenization_spaces": False, "model_max_length": 8192}
    return files_of(
        tokenizer, config=config | special | {"tokenizer_class": "GPT2Tokenizer"}, special=special, split=True
    )


def qwen2():
    end = "<|endoftext|>"
    tokenizer = byte_bpe([], gpt_split(digits=""), normalizer=normalizers.NFC())
    tokenizer.add_special_tokens([end, "<|im_start|>", "<|im_end|>"])
    config = {"add_bos_token": False, "add_prefix_space": False, "bos_token": None, "eos_token": end, "pad_token": end}
    config |= {"errors": "replace", "model_max_length": 131072, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}
    config["added_tokens_decoder"] = added(tokenizer, [end, "<|im_start|>", "<|im_end|>"])
    return files_of(tokenizer, config=config, special={}, split=True)


def added(tokenizer, tokens):
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {str(tokenizer.token_to_id(token)): {"content": token} | flags for token in tokens}


def llama3():
    """BOS is put in front of every text; there is no pad token."""
    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = byte_bpe([], gpt_split())
    special = [begin, end, *(f"<|reserved_special_token_{number}|>" for number in range(4))]
    tokenizer.add_special_tokens(special)
    template = processors.TemplateProcessing(
        single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, tokenizer.token_to_id(begin))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    config = {"bos_token": begin, "eos_token": end, "clean_up_tokenization_spaces": True, "model_max_length": 131072}
    config |= {"model_input_names": ["input_ids", "attention_mask"], "tokenizer_class": "PreTrainedTokenizerFast"}
    config["added_tokens_decoder"] = added(tokenizer, special)
    return files_of(tokenizer, config=config, special={"bos_token": begin, "eos_token": end})


ROBERTA_SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
}
ROBERTA_SPECIAL |= {"pad_token": "<pad>", "mask_token": "<mask>"}


def roberta(config):
    tokenizer = byte_bpe(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return files_of(tokenizer, config=config, special=ROBERTA_SPECIAL, json_file=False, split=True)


def unixcoder():
    config = {"add_prefix_space": False, "errors": "replace", "model_max_length": 1000000000000000019884624838656}
    return roberta(config | ROBERTA_SPECIAL | {"tokenizer_class": "RobertaTokenizer", "trim_offsets": True})


def graphcodebert():
    return roberta({"model_max_length": 512})  # 25 bytes, as published


def wordpiece(json_file=True, lower=True):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = trained(
        kinds.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False),
        normalizer=normalizers.BertNormalizer(lowercase=lower),
        pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
        decoder=decoders.WordPiece(),
    )
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    config = names | {"do_lower_case": lower, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    files = files_of(tokenizer, config=config, special=names, json_file=json_file)
    vocabulary = tokenizer.get_vocab()
    files["vocab.txt"] = "\n".join([*sorted(vocabulary, key=vocabulary.get), ""]).encode()
    return files


def distilbert():
    files = wordpiece(json_file=False)
    config = json.loads(files["tokenizer_config.json"]) | {"tokenizer_class": "DistilBertTokenizer"}
    return files | {"tokenizer_config.json": as_json(config)}


def sentencepiece(vocabulary, kinds_of_piece):
    """A ModelProto of SentencePiece with (piece, score), in protobuf's wire format."""
    out = io.BytesIO()
    for piece, score in vocabulary:
        raw, kind = piece.encode(), kinds_of_piece.get(piece, 1)
        body = b"\x0a" + varint(len(raw)) + raw + b"\x15" + struct.pack("<f", score)
        body += b"\x18" + varint(kind) if kind != 1 else b""
        out.write(b"\x0a" + varint(len(body)) + body)
    return out.getvalue()


def varint(number):
    out = b""
    while True:
        number, rest = number >> 7, number & 127
        out += bytes([rest | (128 if number else 0)])
        if not number:
            return out


def xlm_roberta():
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = trained(
        kinds.Unigram(),
        trainers.UnigramTrainer(
            vocab_size=500, special_tokens=[*special, "<mask>"], unk_token="<unk>", show_progress=False
        ),
        normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]),
        pre_tokenizer=pre_tokenizers.Metaspace(),
        decoder=decoders.Metaspace(),
    )
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    config = ROBERTA_SPECIAL | {"model_max_length": 8192, "tokenizer_class": "XLMRobertaTokenizer"}
    files = files_of(tokenizer, config=config, special=ROBERTA_SPECIAL)
    pieces = [
        tuple(piece) for piece in json.loads(files["tokenizer.json"])["model"]["vocab"] if piece[0] not in special
    ]
    proto = sentencepiece([("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *pieces], {"<unk>": 2, "<s>": 3, "</s>": 3})
    return files | {"sentencepiece.bpe.model": proto}


def mistral():
    """SentencePiece BPE with bytes to fall back on; BOS in front and EOS at the end."""
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = trained(
        kinds.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True),
        trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False),
        normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special[:3]]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> <s>:1 $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    config = {
        "add_bos_token": True,
        "add_eos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    config |= {"pad_token": "</s>", "model_max_length": 1000000000000000019884624838656, "legacy": True}
    config |= {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": added(tokenizer, special[:3])}
    names = {name: config[name] for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    files = files_of(tokenizer, config=config, special=names)
    pieces = [
        (piece, -float(number)) for number, piece in enumerate(json.loads(files["tokenizer.json"])["model"]["vocab"])
    ]
    types = {"<unk>": 2, "<s>": 3, "</s>": 3} | dict.fromkeys(special[3:], 6)
    return files | {"tokenizer.model": sentencepiece(pieces, types)}


# --- weights

DECODER = {
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEYS,
    "hidden_act": "silu",
    "initializer_range": 0.2,
    "rms_norm_eps": 1e-05,
    "use_cache": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
}
ENCODER = {
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.2,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "model_type": "bert",
    "torch_dtype": "float32",
    "transformers_version": "4.15.0",
}
ROBERTA_CONFIG = ENCODER | {"model_type": "roberta", "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
ROBERTA_CONFIG |= {"layer_norm_eps": 1e-05, "type_vocab_size": 1}
LLAMA3 = DECODER | {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": ...,
    "eos_token_id": ...,
    "head_dim": HIDDEN // HEADS,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "pretraining_tp": 1,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
}
SMOLLM2 = DECODER | {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 4,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
}
QWEN2 = DECODER | {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": ...,
    "eos_token_id": ...,
    "max_position_embeddings": 32768,
    "max_window_layers": LAYERS,
    "model_type": "qwen2",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "use_mrope": False,
    "tie_word_embeddings": True,
    "_unused": 29,  # the embeddings have more rows than the tokenizer has tokens
}
MISTRAL = DECODER | {
    "_name_or_path": "mistralai/Mistral-7B-v0.1",
    "architectures": ["MistralModel"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": False,
}
DISTILBERT = {
    "activation": "gelu",
    "architectures": ["DistilBertModel"],
    "attention_dropout": 0.1,
    "dim": HIDDEN,
    "dropout": 0.1,
    "hidden_dim": 2 * HIDDEN,
    "initializer_range": 0.2,
    "max_position_embeddings": 512,
    "model_type": "distilbert",
    "n_heads": HEADS,
    "n_layers": LAYERS,
    "pad_token_id": 0,
    "sinusoidal_pos_embds": False,
    "tie_weights_": True,
}
KINDS = {
    "smollm2": (SMOLLM2, gpt2),
    "qwen2": (QWEN2, qwen2),
    "llama3": (LLAMA3, llama3),
    "mistral": (MISTRAL, mistral),
    "unixcoder": (ROBERTA_CONFIG | {"architectures": ["RobertaModel"], "max_position_embeddings": 1026}, unixcoder),
    "graphcodebert": (
        ROBERTA_CONFIG | {"architectures": ["RobertaForMaskedLM"], "max_position_embeddings": 514},
        graphcodebert,
    ),
    "contriever": (ENCODER | {"architectures": ["Contriever"]}, wordpiece),
    "retromae": (ENCODER | {"architectures": ["BertForMaskedLM"]}, lambda: wordpiece(json_file=False)),
    "bert": (ENCODER | {"architectures": ["BertModel"]}, wordpiece),
    "distilbert": (DISTILBERT, distilbert),
    "xlm-roberta": (
        ROBERTA_CONFIG
        | {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "max_position_embeddings": 8194},
        xlm_roberta,
    ),
}
CLASSES = {"llama": "ForCausalLM", "qwen2": "ForCausalLM", "mistral": "Model"}


def built(settings: dict, seed: str, head: bool = True):
    """transformers' model of a config.json."""
    import transformers

    config = transformers.CONFIG_MAPPING[settings["model_type"]].from_dict(dict(settings))
    name = settings["architectures"][0]
    kind = getattr(transformers, name if hasattr(transformers, name) else "BertModel")
    if not head:
        kind = transformers.MODEL_MAPPING[type(config)]
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(seed.encode()))
        return kind(config)


def published(kind, settings, seed) -> dict[str, torch.Tensor]:
    """The weights of a model under their published names, in their published type."""
    weights = dict(built(settings, seed).state_dict())
    if settings.get("tie_word_embeddings") is True:
        weights.pop("lm_head.weight", None)
    if kind in ("unixcoder", "graphcodebert", "contriever", "retromae", "bert", "xlm-roberta"):  # a buffer, once saved
        prefix = {"graphcodebert": "roberta.", "retromae": "bert."}.get(kind, "")
        weights[f"{prefix}embeddings.position_ids"] = torch.arange(settings["max_position_embeddings"])[None]
    for name in weights.keys() & {"model.embed_tokens.weight", "embed_tokens.weight"}:  # of a decoder
        # Texts end alike, so their embeddings are nearly alike, as pretrained ones are: in bfloat16 Sim has ties, without
        # which a temperature of 1e-4 lets no gradient through.
        weights[name][settings["eos_token_id"]] *= 32
    dtype = getattr(torch, settings.get("torch_dtype", "float32"))
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}


def is_weight(name, suffix):
    return name.startswith({"safetensors": "model", "bin": "pytorch_model"}[suffix]) and name.endswith(f".{suffix}")


def shards(names, weights, suffix, write_shard) -> dict[str, bytes]:
    """The weights in one file, or in several with an index."""
    keys, found, weight_map = list(weights), {}, {}
    for number, name in enumerate(sorted(names)):
        part = keys[number * len(keys) // len(names) : (number + 1) * len(keys) // len(names)]
        found[name] = write_shard({key: weights[key] for key in part})
        weight_map |= dict.fromkeys(part, name)
    if len(names) > 1:
        index = {"metadata": {"total_size": sum(value.nbytes for value in weights.values())}, "weight_map": weight_map}
        found[{"safetensors": "model.safetensors.index.json", "bin": "pytorch_model.bin.index.json"}[suffix]] = as_json(index)  # fmt: skip
    return found


def as_safetensors(weights):
    copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    return save(copies, metadata={"format": "pt"})


def as_pickle(weights):
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue()


def sentence_transformers(kind):
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": kind == "bert"}
    pooling |= {"pooling_mode_cls_token": kind == "xlm-roberta", "pooling_mode_lasttoken": kind == "mistral"}
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]  # the last has no folder
    return {
        "1_Pooling/config.json": as_json(pooling),
        "modules.json": as_json(
            [
                {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
                for number, (name, path) in enumerate(modules)
            ]
        ),
        "sentence_bert_config.json": as_json({"max_seq_length": 512, "do_lower_case": False}),
        "config_sentence_transformers.json": as_json({"__version__": {"sentence_transformers": "2.2.2"}}),
    }


# --- the authors' adapters


def adapter(base: str) -> dict[str, bytes]:
    """LoRA on all projections of a model without its head, as peft 0.13.2 wrote it."""
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    kind, *words = REPOSITORIES[f"models/{base}"].content.split()
    config, tokenizer = KINDS[kind]
    settings = config | ({"tie_word_embeddings": "tied" in words} if kind == "llama3" else {})
    settings["vocab_size"] = len(json.loads(tokenizer()[VOCABULARY])) + settings.pop("_unused", 0)
    settings |= {"bos_token_id": None, "eos_token_id": None}
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(task_type="FEATURE_EXTRACTION", r=256, lora_alpha=64, lora_dropout=0.1, target_modules=targets)
    model = get_peft_model(built(settings, base, head=False), lora)
    dice = torch.Generator().manual_seed(zlib.crc32(base.encode()))
    weights = {
        name: (torch.randn(value.shape, generator=dice) * 0.02).to(torch.bfloat16)
        for name, value in get_peft_model_state_dict(model).items()
    }
    assert all(name.startswith("base_model.model.layers.") for name in weights)
    content = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": 64,
        "lora_dropout": 0.1,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 256,
        "rank_pattern": {},
        "revision": None,
        "target_modules": targets,
        "task_type": "FEATURE_EXTRACTION",
        "use_dora": False,
        "use_rslora": False,
    }
    card = f"---\nbase_model: {base}\nlibrary_name: peft\n---\n".encode()
    return {"README.md": card, "adapter_config.json": as_json(content), "adapter_model.safetensors": save(weights)}
