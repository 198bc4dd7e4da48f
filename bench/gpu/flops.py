"""Operations that a training step needs, counted once each: what is computed again to save memory does not count.

The same count as crates/align/flops.rs; bench/gpu/test_report.py holds both to one table of numbers.
"""

MISTRAL_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
}

TINY = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def products(config):
    """Name, rows and columns of a layer's weights as they are multiplied: q, k, v together, gate and up together."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    width = hidden // config["num_attention_heads"]
    keys = width * config["num_key_value_heads"]
    return [
        ("qkv", hidden + 2 * keys, hidden),
        ("o", hidden, hidden),
        ("gate_up", 2 * inner, hidden),
        ("down", hidden, inner),
    ]


def attention(config, pairs, layers=None):
    """Forward: q·k and p·v of every (query, key) pair that is seen, in every head."""
    layers = config["num_hidden_layers"] if layers is None else layers
    return 4 * config["hidden_size"] * pairs * layers


def step(config, lengths, predicted, lora_rank=None):
    """Forward and backward of causal sequences. `predicted`: rows of the head. With `lora_rank` the weights are frozen, so
    that their gradient (a third of the products) is not computed, and every projection has an adapter."""
    tokens = sum(lengths)
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    layers = config["num_hidden_layers"]
    weights = layers * sum(rows * columns for _, rows, columns in products(config))
    head = config["vocab_size"] * config["hidden_size"]
    passes = 3 if lora_rank is None else 2
    linear = 2 * passes * (tokens * weights + predicted * head)
    adapter = 0
    if lora_rank is not None:
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
        # Inputs and outputs of q, o; k, v; gate, up, down.
        ends = 2 * (2 * hidden) + 2 * (hidden + keys) + 3 * (hidden + inner)
        adapter = 6 * tokens * layers * lora_rank * ends
    return linear + adapter + 3 * attention(config, pairs)
