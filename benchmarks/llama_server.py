"""Runs llama.cpp's server with a small model of random weights: real continuous batching, on one core.

`python llama_server.py FOLDER PORT [SLOTS]` writes the model into the folder if it is not there, and serves it on
127.0.0.1. Port 0 takes a free one; the first line on standard output is the address of completions.
"""

import os
import sys
from pathlib import Path

import gguf
import numpy as np

# Few wide layers: a step is mostly arithmetic, grows evenly with its sequences, and takes a millisecond with four.
LAYERS, WIDTH, HEADS, FEED_FORWARD, CONTEXT = 2, 256, 2, 512, 4096
BYTES = b"\n" + bytes(range(33, 127))  # what it reads and says: each token is a whole character, and is sent at once


def write_model(path, seed=7):
    """Write a llama of random weights whose vocabulary is a space, ASCII and three special tokens."""
    random = np.random.default_rng(seed)
    n_vocab = 4 + len(BYTES)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(n_vocab)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(
        [b"<unk>", b"<s>", b"</s>", "\u2581".encode(), *(f"<0x{byte:02X}>".encode() for byte in BYTES)]
    )
    writer.add_token_scores([0.0] * n_vocab)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, kinds.NORMAL, *([kinds.BYTE] * len(BYTES))])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)

    def add(name, *shape):
        writer.add_tensor(name, random.normal(0.0, 0.02, shape).astype(np.float32))

    def add_norm(name):
        writer.add_tensor(name, np.ones(WIDTH, np.float32))

    add("token_embd.weight", n_vocab, WIDTH)
    add("output.weight", n_vocab, WIDTH)
    add_norm("output_norm.weight")
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{name}.weight", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_up.weight", FEED_FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, FEED_FORWARD)
        add_norm(f"blk.{layer}.attn_norm.weight")
        add_norm(f"blk.{layer}.ffn_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(folder, port, slots):
    """Serve the model until standard input ends."""
    import xllamacpp  # after the model is written: its wheel is large

    model = Path(folder) / "random.gguf"
    if not model.exists():
        part = model.with_suffix(f".{os.getpid()}")
        write_model(str(part))
        part.rename(model)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.n_ctx = slots * 512
    parameters.n_parallel = slots
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.cont_batching = True
    parameters.cache_ram_mib = 0
    parameters.hostnames, parameters.port = ["127.0.0.1"], port
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    print(f"{server.listening_address}/v1/completions", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 8)
