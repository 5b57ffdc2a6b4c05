"""Make a tiny language model with random weights and serve it with `transformers serve`, without a network.

    python tests/e2e/serve_tiny.py FOLDER

The model answers nonsense, but it is a real model behind a real server. Its tokens are bytes, its name is `tiny`.
The server chooses a free port and says which.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def make_model(folder: Path) -> None:
    """One layer of 16 dimensions over a vocabulary of bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokens = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def main() -> None:
    """Make, then serve until killed."""
    folder = Path(sys.argv[1])
    make_model(folder / "tiny")
    os.chdir(folder)  # the server knows the model by its path, which then is its name
    from transformers.cli.serve import Serve

    Serve("tiny", host="127.0.0.1", port=0, device="cpu")


if __name__ == "__main__":
    main()
