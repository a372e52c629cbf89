"""The model all-MiniLM-L6-v2 in numpy: the forward pass of a small BERT, and nothing else.

`load(directory)` reads a model directory of the Hugging Face layout and returns the function that embeds sentences.
The imports are inside it because this file is also imported where `modal run` is typed, and there numpy isn't needed.
"""

import json
from typing import Callable, List

Embed = Callable[[List[str]], List[List[float]]]


def load(directory: str) -> Embed:
    """Loads the weights into memory; the answer turns sentences into vectors of length one."""
    import numpy as np
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    with open(f"{directory}/config.json") as file:
        config = json.load(file)
    with open(f"{directory}/sentence_bert_config.json") as file:
        longest = json.load(file)["max_seq_length"]
    weights = load_file(f"{directory}/model.safetensors")
    tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding()
    heads = config["num_attention_heads"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def layer_norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def softmax(x):
        exponentials = np.exp(x - x.max(-1, keepdims=True))
        return exponentials / exponentials.sum(-1, keepdims=True)

    def gelu(x):
        # numpy has no erf; this is Abramowitz and Stegun 7.1.26, off by 1.5e-7 at most.
        z = np.abs(x) / np.sqrt(np.float32(2))
        t = 1 / (1 + 0.3275911 * z)
        series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
        return 0.5 * x * (1 + np.sign(x) * (1 - series * np.exp(-z * z)))

    def attention(x, mask, name):
        def split(part):  # (batch, words, width) -> (batch, heads, words, width / heads)
            return linear(x, f"{name}.self.{part}").reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(np.float32(query.shape[-1]))
        scores = np.where(mask[:, None, None, :], scores, np.float32(-1e9))
        mixed = (softmax(scores) @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        return layer_norm(x + linear(mixed, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def embed(sentences: List[str]) -> List[List[float]]:
        encoded = tokenizer.encode_batch(list(sentences))
        words = np.array([sentence.ids for sentence in encoded])
        mask = np.array([sentence.attention_mask for sentence in encoded], dtype=bool)

        x = weights["embeddings.word_embeddings.weight"][words]
        x = x + weights["embeddings.position_embeddings.weight"][: words.shape[1]]
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        x = layer_norm(x, "embeddings.LayerNorm")
        for number in range(config["num_hidden_layers"]):
            layer = f"encoder.layer.{number}"
            x = attention(x, mask, f"{layer}.attention")
            wide = gelu(linear(x, f"{layer}.intermediate.dense"))
            x = layer_norm(x + linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")

        # The vector of a sentence is the mean over its words, scaled to length one.
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).tolist()

    return embed
