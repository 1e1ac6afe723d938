"""In-batch attention against eq. 3-9 written out by hand, and its invariants."""

import copy
import itertools
import math

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from revela.method import inbatch
from revela.method.inbatch import InBatchError, hidden_states, logits
from revela.method.packing import PackingError
from revela.pretrained import PretrainedError

VOCAB = 31
TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
ARCHITECTURES = {
    "Llama": {},
    "Qwen2": {"tie_word_embeddings": True},
    "Qwen3": {},
    "SmolLM3": {"num_hidden_layers": 4, "no_rope_layer_interval": 2},
    "Gemma": {},
    # The first of two layers sees three tokens back only.
    "Gemma3": {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 4},
}
CONFIGS = {"Gemma3": "Gemma3TextConfig"}


@pytest.fixture(autouse=True, params=["pairs", "sum"])
def way(request, monkeypatch):
    """Of `sparse` without V-normalisation: each pair on its own, as on a GPU, or the sum of all, as on a CPU."""
    monkeypatch.setattr(inbatch, "HALF", 0 if request.param == "pairs" else 10**9)


def make(architecture="Llama", dtype=torch.float64, **changes):
    """A tiny random causal LM of an architecture, trainable, without dropout."""
    config_class = getattr(transformers, CONFIGS.get(architecture, f"{architecture}Config"))
    config = config_class(**TINY | ARCHITECTURES.get(architecture, {}) | changes)
    torch.manual_seed(0)
    lm = getattr(transformers, f"{architecture}ForCausalLM")(config)
    for name, weight in lm.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    lm.to(dtype).train()
    if architecture == "Llama" and dtype == torch.float64:
        in_full_precision(lm)
    return lm


def in_full_precision(lm):
    """Llama's norm is float32 inside whatever the model is; torch's own does the same in float64."""
    for module in list(lm.modules()):
        for name, norm in module.named_children():
            if type(norm).__name__ == "LlamaRMSNorm":
                pure = torch.nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon, dtype=torch.float64)
                pure.weight = norm.weight
                setattr(module, name, pure)


def make_batch(lengths=(5, 2, 7, 4), seed=0, dtype=torch.float64, spread=1.0):
    """Token ids, mask and a Sim of documents of the given lengths, padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    ids = torch.randint(3, VOCAB, mask.shape, generator=generator) * mask
    itself = torch.eye(len(lengths), dtype=torch.bool)
    noise = torch.randn(len(lengths), len(lengths), generator=generator, dtype=dtype)
    sim = (noise / spread).masked_fill(itself, -math.inf).softmax(1)
    return ids, mask, sim.requires_grad_()


def run(lm, ids, mask, sim, *, value_norm=False, attention="sparse", seed=0):
    """The h-stream's logits, and the gradients of a random function of them to Sim and to all weights."""
    lm.zero_grad()
    sim = sim.detach().clone().requires_grad_()
    out = logits(lm, ids, mask, sim, value_norm=value_norm, attention=attention)[mask.bool()]
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(out.dtype)
    (out.log_softmax(1) * probe).sum().backward()
    gradients = {name: weight.grad for name, weight in lm.named_parameters() if weight.grad is not None}
    gradients["sim"] = sim.grad.masked_fill(torch.eye(len(sim), dtype=torch.bool), 0)  # no one moves the diagonal
    return out, gradients


def assert_equal_runs(ours, theirs, rtol=1e-9, atol=1e-10):
    torch.testing.assert_close(ours[0], theirs[0], rtol=rtol, atol=atol)
    torch.testing.assert_close(ours[1], theirs[1], rtol=rtol, atol=atol)


# --- the oracle: eq. 3-9, a Llama layer by hand, one document, head and pair at a time


def rms_norm(x, norm):
    return x / (x.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight


def rotate(x, theta):
    """Rotary positions 0.. of x [L, d], pairs (k, k + d/2); the table is float32, as Llama's."""
    length, dim = x.shape
    frequencies = 1 / theta ** (torch.arange(0, dim, 2).float() / dim)
    angles = torch.arange(length)[:, None].float() * frequencies
    cos, sin = angles.cos().double(), angles.sin().double()
    first, second = x[:, : dim // 2], x[:, dim // 2 :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], 1)


def attend(q, k, v, causal):
    """softmax(q k^T / sqrt(d)) v, and the probabilities."""
    scores = q @ k.T / math.sqrt(q.shape[1])
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
    p = scores.exp() / scores.exp().sum(1, keepdim=True)
    return p @ v, p


def oracle(lm, documents, sim, value_norm, gate=None):
    """The h-stream's logits of each document (a list of unpadded id vectors); gate: [layers, heads]."""
    config, model = lm.config, lm.model
    dim, heads = config.head_dim, config.num_attention_heads
    group = heads // config.num_key_value_heads
    theta = config.rope_parameters["rope_theta"]
    e = [model.embed_tokens.weight[ids] for ids in documents]
    h = list(e)
    for number, layer in enumerate(model.layers):
        attention, mlp = layer.self_attn, layer.mlp

        def heads_of(x, weight, rotary, layer=layer):
            x = rms_norm(x, layer.input_layernorm) @ weight.T
            parts = x.split(dim, 1)
            return [rotate(part, theta) for part in parts] if rotary else list(parts)

        def rest(x, concatenated, layer=layer, attention=attention, mlp=mlp):
            x = x + concatenated @ attention.o_proj.weight.T
            y = rms_norm(x, layer.post_attention_layernorm)
            gate, up = y @ mlp.gate_proj.weight.T, y @ mlp.up_proj.weight.T
            return x + (gate * gate.sigmoid() * up) @ mlp.down_proj.weight.T

        def project(x, attention=attention):
            return (
                heads_of(x, attention.q_proj.weight, True),
                heads_of(x, attention.k_proj.weight, True),
                heads_of(x, attention.v_proj.weight, False),
            )

        of_e, of_h = [project(x) for x in e], [project(x) for x in h]
        new_e = [
            torch.cat([attend(q[n], k[n // group], v[n // group], True)[0] for n in range(heads)], 1)
            for q, k, v in of_e
        ]
        new_h = []
        for i, (q, k, v) in enumerate(of_h):
            outputs = []
            for n in range(heads):
                output = attend(q[n], k[n // group], v[n // group], True)[0]  # s_i
                for j, (_, k_e, v_e) in enumerate(of_e):
                    if j == i:
                        continue
                    b, p = attend(q[n], k_e[n // group], v_e[n // group], False)
                    if value_norm:
                        norms = v_e[n // group].pow(2).sum(1).sqrt()
                        b = b / ((p @ norms)[:, None] + 1e-6)
                    output = output + (sim[i, j] if gate is None else gate[number, n] * sim[i, j]) * b
                outputs.append(output)
            new_h.append(torch.cat(outputs, 1))
        e = [rest(x, y) for x, y in zip(e, new_e)]
        h = [rest(x, y) for x, y in zip(h, new_h)]
    return [rms_norm(x, model.norm) @ lm.lm_head.weight.T for x in h]


@pytest.mark.parametrize("attention", ["sparse", "dense"])
@pytest.mark.parametrize("value_norm", [False, True])
def test_equals_the_equations(value_norm, attention):
    lm = make()
    ids, mask, sim = make_batch()
    ours = run(lm, ids, mask, sim, value_norm=value_norm, attention=attention)

    lm.zero_grad()
    sim = sim.detach().clone().requires_grad_()
    documents = [row[keep.bool()] for row, keep in zip(ids, mask)]
    out = torch.cat(oracle(lm, documents, sim, value_norm))
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (out.log_softmax(1) * probe).sum().backward()
    theirs = out, {name: weight.grad for name, weight in lm.named_parameters()} | {"sim": sim.grad}
    assert_equal_runs(ours, theirs)


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_worked_by_hand(attention):
    """One layer, one head, queries zero: attention is a mean. Values are the embeddings, and there is no MLP."""
    lm = make(
        hidden_size=2, num_attention_heads=1, num_key_value_heads=1, head_dim=2, num_hidden_layers=1, rms_norm_eps=0.0
    )
    layer = lm.model.layers[0]
    for weight in (layer.self_attn.q_proj.weight, layer.mlp.down_proj.weight):
        torch.nn.init.zeros_(weight)
    for weight in (layer.self_attn.v_proj.weight, layer.self_attn.o_proj.weight):
        torch.nn.init.eye_(weight)
    for norm in (layer.input_layernorm, lm.model.norm):
        torch.nn.init.ones_(norm.weight)
    a, b = [1.0, 1.0], [1.0, -1.0]  # of root mean square 1, which the norm leaves as they are
    lm.model.embed_tokens.weight.data[3:5] = torch.tensor([a, b])
    ids, mask = torch.tensor([[3, 0], [3, 4], [4, 0]]), torch.tensor([[1, 0], [1, 1], [1, 0]])
    sim = torch.tensor([[0, 0.5, 0.5], [0.25, 0, 0.75], [1, 0, 0]], dtype=torch.float64)

    def final(*x):
        """What the last norm makes of x."""
        return torch.tensor(x, dtype=torch.float64) * math.sqrt(2) / math.hypot(*x)

    h = hidden_states(lm, ids, mask, sim, value_norm=False, attention=attention)
    # Document 0: x = s = (1, 1); b_01 = mean of a and b = (1, 0), b_02 = b; b_0 = (1, -0.5).
    torch.testing.assert_close(h[0, 0], final(3, 1.5))
    # Document 1, first token: x = s = a, b_10 = a, b_12 = b, b_1 = (1, -0.5). Second: x = b, s = (1, 0).
    torch.testing.assert_close(h[1], torch.stack([final(3, 1.5), final(1 + 1 + 1, -1 + 0 - 0.5)]))
    # Document 2: x = s = b, b_20 = a.
    torch.testing.assert_close(h[2, 0], final(3, -1))
    # All values have norm sqrt(2), so N_ij = sqrt(2) throughout.
    h = hidden_states(lm, ids, mask, sim, value_norm=True, attention=attention)
    torch.testing.assert_close(h[0, 0], final(2 + 1 / math.sqrt(2), 2 - 0.5 / math.sqrt(2)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(h[2, 0], final(2 + 1 / math.sqrt(2), -2 + 1 / math.sqrt(2)), rtol=1e-5, atol=1e-6)


# --- stock models


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_e_stream_is_the_stock_model(architecture):
    lm = make(architecture)
    ids, mask, sim = make_batch((6, 2, 9, 4))
    _, e = hidden_states(lm, ids, mask, sim, value_norm=False, e_stream=True)
    stock = lm.model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(e[mask.bool()], stock[mask.bool()], rtol=1e-10, atol=1e-10)
    assert not e[~mask.bool()].any()


@pytest.mark.parametrize("value_norm", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sparse_equals_dense(architecture, value_norm):
    lm = make(architecture)
    batch = make_batch((6, 2, 9, 4))
    sparse, dense = (run(lm, *batch, value_norm=value_norm, attention=a) for a in ("sparse", "dense"))
    assert_equal_runs(sparse, dense)


def test_negligible_pairs_are_left_out_and_not_missed():
    lm = make()
    ids, mask, sim = make_batch((5, 2, 7, 4, 3, 6), spread=0.05)
    assert (sim < 1e-8).sum() > 2 * len(sim)
    runs = [run(lm, ids, mask, sim, attention=attention) for attention in ("sparse", "dense")]
    for _, gradients in runs:  # what reaches the scores log Sim is Sim dSim
        gradients["sim"] *= sim.detach()
    assert_equal_runs(*runs, rtol=1e-6, atol=1e-6)


def test_a_sliding_window_limits_the_own_document_only():
    """Document 1 is longer than the window; that all of it is seen by document 0 shows in nothing having changed."""
    layers = {"num_hidden_layers": 1, "layer_types": ["sliding_attention"]}
    wide, narrow = make("Gemma3", **layers, sliding_window=64), make("Gemma3", **layers, sliding_window=3)
    batch = make_batch((3, 9))
    h_wide, h_narrow = (hidden_states(lm, *batch, value_norm=False) for lm in (wide, narrow))
    torch.testing.assert_close(h_wide[0], h_narrow[0])
    torch.testing.assert_close(h_wide[1, :3], h_narrow[1, :3])
    assert not torch.allclose(h_wide[1, 3:], h_narrow[1, 3:])


@pytest.mark.parametrize(
    "architecture, error, word", [("Gemma2", PackingError, "cap"), ("Granite", PretrainedError, "logits_scaling")]
)
def test_models_that_do_more_are_refused(architecture, error, word):
    lm = make(architecture, **({"logits_scaling": 8.0} if architecture == "Granite" else {}))
    with pytest.raises(error, match=word):
        logits(lm, *make_batch(), value_norm=False)


# --- invariants


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_gradient_of_sim_by_finite_differences(attention):
    lm = make()
    ids, mask, _ = make_batch((3, 2, 4))

    def loss(scores):
        sim = scores.masked_fill(torch.eye(3, dtype=torch.bool), -math.inf).softmax(1)
        return logits(lm, ids, mask, sim, value_norm=True, attention=attention)[mask.bool()].log_softmax(1)[:, 5].sum()

    torch.autograd.gradcheck(loss, torch.randn(3, 3, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_order_of_the_documents_does_not_matter(attention):
    lm = make()
    ids, mask, sim = make_batch()
    order = torch.tensor([2, 0, 3, 1])
    h = hidden_states(lm, ids, mask, sim, value_norm=True, attention=attention)
    permuted = hidden_states(lm, ids[order], mask[order], sim[order][:, order], value_norm=True, attention=attention)
    torch.testing.assert_close(permuted, h[order])


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_pads_change_nothing(attention):
    lm = make()
    ids, mask, sim = make_batch()
    h = hidden_states(lm, ids, mask, sim, value_norm=True, attention=attention)
    junk = torch.randint(3, VOCAB, (len(ids), 3))
    wide = torch.where(mask.bool(), ids, torch.randint_like(ids, 3, VOCAB))
    wide, wide_mask = torch.cat([wide, junk], 1), torch.cat([mask, torch.zeros_like(junk)], 1)
    padded = hidden_states(lm, wide, wide_mask, sim, value_norm=True, attention=attention)
    assert torch.equal(padded[:, : ids.shape[1]], h)
    # On the left, too.
    left = torch.stack([row.roll(int((1 - keep).sum())) for row, keep in zip(ids, mask)])
    left = hidden_states(lm, left, mask.flip(1), sim, value_norm=True, attention=attention)
    assert torch.equal(left[mask.flip(1).bool()], h[mask.bool()])


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_one_hot_sim_is_attention_to_that_document_alone(attention):
    lm = make()
    ids, mask, _ = make_batch()
    sim = torch.zeros(4, 4, dtype=torch.float64)
    sim[[0, 1, 2, 3], [2, 0, 1, 0]] = 1
    h = hidden_states(lm, ids, mask, sim, value_norm=False, attention=attention)
    for i, j in enumerate(sim.argmax(1)):
        two = torch.tensor([i, j])
        swap = 1 - torch.eye(2, dtype=torch.float64)
        pair = hidden_states(lm, ids[two], mask[two], swap, value_norm=False, attention=attention)
        torch.testing.assert_close(h[i], pair[0])
    # And a document that nobody looks at is seen by nobody.
    other = ids.clone()
    other[3, 1] = 3 + (ids[3, 1] - 2) % (VOCAB - 3)
    changed = hidden_states(lm, other, mask, sim, value_norm=False, attention=attention)
    assert torch.equal(changed[:3], h[:3]) and not torch.allclose(changed[3], h[3])


def test_past_tokens_do_not_see_future_ones_of_their_own_document():
    lm = make()
    ids, mask, _ = make_batch()
    sim = torch.tensor([[0, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.float64)
    other = ids.clone()
    other[3, 2] = 3 + (ids[3, 2] - 2) % (VOCAB - 3)
    h, changed = (hidden_states(lm, x, mask, sim, value_norm=False) for x in (ids, other))
    torch.testing.assert_close(changed[3, :2], h[3, :2])
    assert not torch.allclose(changed[3, 2], h[3, 2])


def test_a_row_of_sim_moves_its_document_alone():
    lm = make()
    ids, mask, sim = make_batch()
    base = hidden_states(lm, ids, mask, sim, value_norm=False)
    for i, j in itertools.permutations(range(4), 2):
        moved = sim.detach().clone()
        moved[i] = 0
        moved[i, j] = 1
        changed = hidden_states(lm, ids, mask, moved, value_norm=False)
        others = [k for k in range(4) if k != i]
        assert torch.allclose(changed[others], base[others]) and not torch.allclose(changed[i], base[i])


def test_nan_in_sim_is_not_lost():
    ids, mask, sim = make_batch()
    sim = sim.detach().clone()
    sim[0, 1] = math.nan
    assert hidden_states(make(), ids, mask, sim, value_norm=False)[0, 0].isnan().all()
    sim[0] = math.nan  # what an embedding of NaN makes of its row, the diagonal included
    assert hidden_states(make(), ids, mask, sim, value_norm=False)[0, 0].isnan().all()


# --- training


def enable_checkpointing(lm, **settings):
    lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_gradient_checkpointing_changes_nothing(attention):
    lm = make()
    batch = make_batch()
    expected = run(lm, *batch, value_norm=True, attention=attention)
    enable_checkpointing(lm, use_reentrant=False)
    calls = []
    handle = lm.model.layers[0].self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    assert_equal_runs(run(lm, *batch, value_norm=True, attention=attention), expected, rtol=0, atol=0)
    handle.remove()
    assert len(calls) == 2, "the layer was not recomputed, so the test shows nothing"


@pytest.mark.parametrize("value_norm", [False, True])
def test_what_is_made_again_changes_no_bit(value_norm, monkeypatch):
    """Weighted values of cross attention, against autograd that keeps all of them."""
    batch = make_batch(dtype=torch.float32)
    lm = make(dtype=torch.float32)
    found = {
        attention: run(lm, *batch, value_norm=value_norm, attention=attention) for attention in ("sparse", "dense")
    }

    def plain(p, weights, value):
        return torch.bmm((p * weights[..., None]).flatten(2), value)

    monkeypatch.setattr(inbatch, "checkpoint", lambda function, *args, **how: function(*args))
    monkeypatch.setattr(inbatch._Weighted, "apply", plain)
    for attention, ours in found.items():
        assert_equal_runs(ours, run(lm, *batch, value_norm=value_norm, attention=attention), rtol=0, atol=0)


def test_reentrant_checkpointing_is_refused():
    lm = make()
    enable_checkpointing(lm, use_reentrant=True)
    with pytest.raises(ValueError, match="use_reentrant=False"):
        run(lm, *make_batch())


def test_lora_starts_as_the_base_and_gets_gradients():
    base = make()
    batch = make_batch()
    expected, gradients = run(base, *batch)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    torch.manual_seed(0)
    lm = get_peft_model(copy.deepcopy(base), LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM")).double()
    ours, lora = run(lm, *batch)
    torch.testing.assert_close(ours, expected)  # B is zero
    torch.testing.assert_close(lora.pop("sim"), gradients["sim"])
    matrices = {name for name, weight in lm.named_parameters() if weight.requires_grad}
    assert lora.keys() == matrices and len(matrices) == 2 * len(targets) * lm.config.num_hidden_layers
    # The last layer's e-stream does not matter, everything else does: each B has a gradient.
    assert all(gradient.any() for name, gradient in lora.items() if "lora_B" in name)
    # The gradient of B is that of the weight, seen through A.
    name = "layers.0.self_attn.v_proj"
    a = lm.get_parameter(f"base_model.model.model.{name}.lora_A.default.weight")
    scale = lm.base_model.model.model.layers[0].self_attn.v_proj.scaling["default"]
    torch.testing.assert_close(
        lora[f"base_model.model.model.{name}.lora_B.default.weight"],
        scale * gradients[f"model.{name}.weight"] @ a.T,
    )
    enable_checkpointing(lm, use_reentrant=False)
    recomputed, again = run(lm, *batch)
    torch.testing.assert_close(recomputed, ours)
    assert all(torch.equal(again[name], lora[name]) for name in lora)


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_bfloat16_and_autocast_are_near(attention):
    ids, mask, sim = make_batch(dtype=torch.float32)
    lm = make(dtype=torch.float32)
    exact, _ = run(lm, ids, mask, sim, value_norm=True, attention=attention)
    with torch.autocast("cpu", torch.bfloat16):
        autocast, gradients = run(lm, ids, mask, sim, value_norm=True, attention=attention)
    half, _ = run(lm.bfloat16(), ids, mask, sim, value_norm=True, attention=attention)
    assert half.dtype == torch.bfloat16 and gradients["sim"].dtype == torch.float32
    for out in (autocast, half):
        assert 0 < (out.float() - exact).norm() / exact.norm() < 0.03


# --- what is left behind, and what is refused


def test_the_model_is_left_as_it_was():
    lm = make()
    enable_checkpointing(lm, use_reentrant=False)
    ids, mask, sim = make_batch()
    layer = lm.model.layers[0]
    before = lm.config._attn_implementation, layer._gradient_checkpointing_func
    stock = lm(input_ids=ids, attention_mask=mask).logits
    run(lm, ids, mask, sim)
    assert (lm.config._attn_implementation, layer._gradient_checkpointing_func) == before
    assert torch.equal(lm(input_ids=ids, attention_mask=mask).logits, stock)
    # And after a failure.
    with pytest.raises(IndexError):
        run(lm, ids + VOCAB, mask, sim)
    assert (lm.config._attn_implementation, layer._gradient_checkpointing_func) == before
    eager = make(attn_implementation="eager")
    torch.testing.assert_close(run(eager, ids, mask, sim)[0], run(lm, ids, mask, sim)[0])
    assert eager.config._attn_implementation == "eager"


def drop_arguments(layer):
    forward = layer.forward
    layer.forward = lambda hidden, position_embeddings, **_: forward(hidden, position_embeddings=position_embeddings)


def misspell(layer):
    forward = layer.forward
    layer.forward = lambda hidden, packing, **rest: forward(hidden, packed=packing, **rest)


def skip(layer):
    layer.forward = lambda hidden, **_: hidden


@pytest.mark.parametrize(
    "break_layer, message",
    [(drop_arguments, "layer 1 did not receive"), (misspell, "layer 1 did not receive"), (skip, "1 of its 2 layers")],
)
def test_a_layer_that_misses_the_similarity_is_an_error(break_layer, message):
    lm = make()
    break_layer(lm.model.layers[1])
    with pytest.raises(PackingError, match=message):
        run(lm, *make_batch())
    assert lm.config._attn_implementation == "sdpa"


def test_batches_that_make_no_sense():
    lm = make()
    ids, mask, sim = make_batch()
    sim = sim.detach()
    cases = {
        r"\(3, 3\); a batch of 4": (ids, mask, sim[:3, :3]),
        "non-zero diagonal": (ids, mask, sim + 0.1),
        "document 1 of the batch has no token": (ids, mask * torch.tensor([[1], [0], [1], [1]]), sim),
    }
    for message, batch in cases.items():
        with pytest.raises(PackingError, match=message):
            logits(lm, *batch, value_norm=False)
    with pytest.raises(InBatchError, match="'flash' is unknown; valid are sparse, dense"):
        logits(lm, ids, mask, sim, value_norm=False, attention="flash")


# --- the gate


def draw_gate(per, seed=3):
    shape = {"one": (), "layer": (2,), "head": (2, 4)}[per]
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.2


def run_gated(lm, batch, gate, *, value_norm, attention, seed=0):
    """As `run`, with the gradient to the gate beside those to Sim and weights."""
    ids, mask, sim = batch
    lm.zero_grad()
    sim, gate = (x.detach().clone().requires_grad_() for x in (sim, gate))
    out = logits(lm, ids, mask, sim, value_norm=value_norm, attention=attention, gate=gate)[mask.bool()]
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (out.log_softmax(1) * probe).sum().backward()
    gradients = {name: weight.grad for name, weight in lm.named_parameters() if weight.grad is not None}
    gradients |= {"sim": sim.grad.masked_fill(torch.eye(len(sim), dtype=torch.bool), 0), "gate": gate.grad}
    return out, gradients


@pytest.mark.parametrize("attention", ["sparse", "dense"])
@pytest.mark.parametrize("value_norm", [False, True])
@pytest.mark.parametrize("per", ["one", "layer", "head"])
def test_a_gate_equals_the_equations(per, value_norm, attention):
    """Eq. 7 by hand with g before b_ij: values and all gradients, that of the gate among them."""
    lm, batch, gate = make(), make_batch(), draw_gate(per)
    ours = run_gated(lm, batch, gate, value_norm=value_norm, attention=attention)

    ids, mask, sim = batch
    lm.zero_grad()
    sim, gate = (x.detach().clone().requires_grad_() for x in (sim, gate))
    documents = [row[keep.bool()] for row, keep in zip(ids, mask)]
    full = gate.expand(2, 4) if per == "one" else gate.view(2, -1).expand(2, 4)
    out = torch.cat(oracle(lm, documents, sim, value_norm, gate=full))
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (out.log_softmax(1) * probe).sum().backward()
    theirs = {name: weight.grad for name, weight in lm.named_parameters()} | {"sim": sim.grad, "gate": gate.grad}
    assert_equal_runs(ours, (out, theirs))
    assert theirs["gate"].abs().min() > 1e-6


@pytest.mark.parametrize("attention", ["sparse", "dense"])
@pytest.mark.parametrize("per", ["layer", "head"])
def test_gradient_of_the_gate_by_finite_differences(per, attention):
    lm = make()
    ids, mask, sim = make_batch((3, 2, 4))

    def loss(gate):
        out = logits(lm, ids, mask, sim.detach(), value_norm=True, attention=attention, gate=gate)
        return out[mask.bool()].log_softmax(1)[:, 5].sum()

    torch.autograd.gradcheck(loss, draw_gate(per).requires_grad_())


@pytest.mark.parametrize("attention", ["sparse", "dense"])
@pytest.mark.parametrize("value_norm", [False, True])
def test_a_gate_is_a_factor_of_sim(value_norm, attention):
    lm = make()
    ids, mask, sim = make_batch()
    options = {"value_norm": value_norm, "attention": attention}
    scaled = hidden_states(lm, ids, mask, 0.3 * sim, **options)
    for gate in (0.3, torch.tensor(0.3).double(), torch.full((2,), 0.3).double(), torch.full((2, 4), 0.3).double()):
        torch.testing.assert_close(hidden_states(lm, ids, mask, sim, gate=gate, **options), scaled)
    assert not torch.allclose(hidden_states(lm, ids, mask, sim, **options), scaled)


@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_a_gate_of_one_changes_no_bit(attention, monkeypatch):
    """In bfloat16, where any product more would show: the constant 1 is not multiplied by."""
    lm = make(dtype=torch.bfloat16)
    ids, mask, sim = make_batch(dtype=torch.float32)
    out, expected = run(lm, ids, mask, sim, value_norm=True, attention=attention)
    seen = []
    monkeypatch.setattr(inbatch._Batch, "gated", lambda batch, weights, layer: seen.append(layer) or weights[None])
    again, gradients = run(lm, ids, mask, sim, value_norm=True, attention=attention)
    assert sorted(set(seen)) == [0, 1] and torch.equal(out, again)
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("attention", ["sparse", "dense"])
def test_a_learned_gate_survives_gradient_checkpointing(attention, frozen):
    lm, batch, gate = make(), make_batch(), draw_gate("head")
    lm.requires_grad_(not frozen)
    expected = run_gated(lm, batch, gate, value_norm=True, attention=attention)
    enable_checkpointing(lm, use_reentrant=False)
    assert_equal_runs(run_gated(lm, batch, gate, value_norm=True, attention=attention), expected, rtol=0, atol=0)


def test_gates_of_other_models_are_refused():
    for shape in ((3,), (2, 3), (2, 4, 1)):
        with pytest.raises(InBatchError, match=r"a model of 2 layers with 4 heads takes \(\), \(2,\) or \(2, 4\)"):
            hidden_states(make(), *make_batch(), value_norm=False, gate=torch.ones(shape))


# --- a frozen model


@pytest.mark.parametrize("attention", ["sparse", "dense"])
@pytest.mark.parametrize("value_norm", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_frozen_model_gives_sim_and_gate_the_same_gradients(architecture, value_norm, attention):
    lm, batch = make(architecture), make_batch((6, 2, 9, 4))
    config = lm.config
    gate = torch.rand(config.num_hidden_layers, config.num_attention_heads, dtype=torch.float64) + 0.2
    out, expected = run_gated(lm, batch, gate, value_norm=value_norm, attention=attention)
    lm.requires_grad_(False)
    frozen, gradients = run_gated(lm, batch, gate, value_norm=value_norm, attention=attention)
    assert gradients.keys() == {"sim", "gate"}
    assert_equal_runs((frozen, gradients), (out, {name: expected[name] for name in gradients}), rtol=1e-10, atol=1e-12)


def test_the_e_stream_of_a_frozen_model_leaves_no_graph():
    """Counted: nothing but the h-stream's activations and the e-stream's keys and values waits for the backward pass."""
    lm, (ids, mask, sim) = make(num_hidden_layers=6), make_batch((9, 8, 7, 9))

    def kept():
        own = {weight.untyped_storage().data_ptr() for weight in lm.parameters()}
        sizes = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            h, e = hidden_states(lm, ids, mask, sim, value_norm=False, e_stream=True)
        assert h.requires_grad
        return sum(sizes.values()), e.requires_grad

    (both, _), _ = kept(), lm.requires_grad_(False)
    alone, e_needs_gradient = kept()
    assert not e_needs_gradient and alone < 0.6 * both
