"""A tiny model as it was published before safetensors."""

import torch
from transformers import BertConfig, BertForMaskedLM

CONFIG = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
}


def tiny_bert(folder, **config):
    """Writes config.json and pytorch_model.bin, and returns the model and the pickled weights.

    As in RetroMAE: keys `bert.*`, a head that is tied to the embeddings, the buffer position_ids, no pooler.
    """
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**CONFIG | config))
    model.config.architectures = ["Contriever"]  # the name says nothing: transformers goes by model_type
    folder.mkdir(parents=True)
    model.config.save_pretrained(folder)
    weights = dict(model.state_dict())
    weights["bert.embeddings.position_ids"] = torch.arange(12)[None]
    torch.save(weights, folder / "pytorch_model.bin")
    return model, weights
