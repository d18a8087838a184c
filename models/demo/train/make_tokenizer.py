"""Trains the byte-level BPE vocabulary on the demo's own text and writes the tokenizer files of a Hugging Face folder.

    python make_tokenizer.py OUT_DIR
"""
import json
import os
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import data

VOCAB = 1536
SPECIAL = ["<|endoftext|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
END, SYSTEM, USER, ASSISTANT = 1, 2, 3, 4
TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}{{ raise_exception('unknown role: ' + message['role']) }}{%- endif -%}"
    "{{ '<|' + message['role'] + '|>' + (message['content'] | trim) + '<|end|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)


def corpus(n=60_000):
    # Without the spelling questions: merges are for words that sentences use, other words stay in pieces that can be spelled.
    stream = data.sampler(data.SEED + 10)
    for _ in range(n):
        kind, system, q, a = next(stream)
        if kind != "spelling":
            yield q
            yield a
    yield from data.SYSTEMS * 50
    yield from ["How do you spell it? It is spelled so. Spell the word. The spelling of the word is spelled. How is it spelled?"] * 200


def main(out):
    os.makedirs(out, exist_ok=True)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, show_progress=False,
                                                          initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    assert tok.get_vocab_size() == VOCAB, tok.get_vocab_size()
    assert [tok.token_to_id(s) for s in SPECIAL] == [0, END, SYSTEM, USER, ASSISTANT]
    tok.save(f"{out}/tokenizer.json")
    json.dump(dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=None, eos_token="<|end|>", pad_token="<|endoftext|>", unk_token=None,
                   additional_special_tokens=SPECIAL[2:], clean_up_tokenization_spaces=False, model_max_length=256, chat_template=TEMPLATE),
              open(f"{out}/tokenizer_config.json", "w"), indent=2)


if __name__ == "__main__":
    main(sys.argv[1])
