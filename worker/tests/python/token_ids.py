"""Small tokenizers in the file formats of all library versions, and the token ids that transformers gives for texts.
`python token_ids.py` writes tests/fixtures/tokenizers; `python token_ids.py check` only compares.
pip install transformers==5.24.0 sentencepiece protobuf"""
import json, os, shutil, sys
import sentencepiece as spm
import transformers as t

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "tokenizers")
EMOJI = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "models", "emoji", "tokenizer")
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
TEXTS = [
    "", "a red apple", "  A  Red\tapple,\n on a sky   blue background! ", "<extra_id_0> and <extra_id_3>x <pad></s>",
    "naïve ﬁre ① Ⅳ — “quoted” 你好 🙂", "!!! wow!! the cat's and the dog's 12345 isn't", "<|startoftext|> cat <|endoftext|>dog",
    "▁under ▁ the", "<|STARTOFTEXT|> <new> <New>x [PAD]", "one two three four five six seven eight nine ten eleven twelve on and the cat red",
]


def write(folder, name, value):
    json.dump(value, open(f"{folder}/{name}", "w"), indent=1, ensure_ascii=False)


def pieces(folder):
    """A unigram model with a few of the character rules of T5's."""
    text, rules = f"{folder}/text", f"{folder}/rules.tsv"
    words = "a an the red apple cat dog owl on and sky blue background under fire one two three four five six seven".split()
    open(text, "w").write("\n".join(" ".join(words[i % n:] + words[: i % n]) for n in (23, 19, 7) for i in range(40)))
    code = lambda s: " ".join(f"{ord(c):X}" for c in s)
    changes = [("ﬁ", "fi"), ("①", "1"), ("Ⅳ", "IV"), ("“", '"'), ("”", '"'), ("\t", " "), ("\n", " ")]
    open(rules, "w").write("".join(f"{code(a)}\t{code(b)}\n" for a, b in changes))
    spm.SentencePieceTrainer.train(input=text, model_prefix=f"{folder}/spiece", vocab_size=60, model_type="unigram", bos_id=-1,
                                   pad_id=0, eos_id=1, unk_id=2, pad_piece="<pad>", normalization_rule_tsv=rules,
                                   hard_vocab_limit=False, minloglevel=2)
    for name in ("text", "rules.tsv", "spiece.vocab"):
        os.remove(f"{folder}/{name}")


def pairs(folder):
    byte = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters = [chr(b) for b in byte] + [chr(256 + i) for i in range(256 - len(byte))]
    merges = ["c a", "ca t</w>", "o n</w>", "r e", "re d</w>", "a n", "an d</w>", "t h", "th e</w>", "d o", "do g</w>"]
    vocab = letters + [x + "</w>" for x in letters] + ["".join(m.split()) for m in merges] + [BOS, EOS]
    vocab = {x: i for i, x in enumerate(vocab)}
    write(folder, "vocab.json", vocab)
    open(f"{folder}/merges.txt", "w").write("#version: 0.2\n" + "\n".join(merges) + "\n")
    return vocab


def decoder(tokens):
    flags = lambda special, **more: dict(dict(lstrip=False, normalized=False, rstrip=False, single_word=False, special=special), **more)
    return {str(i): dict(content=text, **flags(special, **more)) for i, text, special, more in tokens}


def t5_config(folder, **more):
    base = dict(eos_token="</s>", pad_token="<pad>", unk_token="<unk>", model_max_length=512, tokenizer_class="T5Tokenizer")
    write(folder, "tokenizer_config.json", dict(base, **more))


def clip_config(folder, **more):
    base = dict(bos_token=BOS, eos_token=EOS, unk_token=EOS, pad_token=EOS, model_max_length=16, tokenizer_class="CLIPTokenizer")
    write(folder, "tokenizer_config.json", dict(base, **more))


# Each writes a folder and returns class and length. The first of each kind has the published settings of T5 and CLIP.

def t5_published(f):
    """PixArt: spiece.model, added_tokens.json, special_tokens_map.json, the added tokens in the config."""
    pieces(f)
    count = spm.SentencePieceProcessor(model_file=f"{f}/spiece.model").get_piece_size()
    extras = {f"<extra_id_{i}>": count + 99 - i for i in range(100)}
    write(f, "added_tokens.json", extras)
    write(f, "special_tokens_map.json", dict(additional_special_tokens=list(extras), eos_token="</s>", pad_token="<pad>", unk_token="<unk>"))
    tokens = [(0, "<pad>", True, {}), (1, "</s>", True, {}), (2, "<unk>", True, {})]
    tokens += [(i, x, True, dict(lstrip=True, rstrip=True)) for x, i in sorted(extras.items(), key=lambda e: e[1])]
    t5_config(f, added_tokens_decoder=decoder(tokens), additional_special_tokens=list(extras), extra_ids=100, legacy=True,
              clean_up_tokenization_spaces=True, sp_model_kwargs={})
    return t.T5Tokenizer, 20


def t5_first(f):
    """google/t5-v1_1-xxl: neither tokens nor padding in the config."""
    pieces(f)
    write(f, "special_tokens_map.json", dict(eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
          additional_special_tokens=[f"<extra_id_{i}>" for i in range(100)]))
    write(f, "tokenizer_config.json", dict(extra_ids=100, model_max_length=512))
    return t.T5Tokenizer, 20


def t5_bare(f):
    pieces(f)
    return t.T5Tokenizer, 12


def t5_saved(f):
    """As a current library saves it: tokenizer.json."""
    folder = f + ".old"
    os.makedirs(folder)
    t5_published(folder)
    t.T5Tokenizer.from_pretrained(folder).save_pretrained(f)
    shutil.rmtree(folder)
    return t.T5Tokenizer, 20


def t5_emoji(f):
    for name in ("spiece.model", "tokenizer_config.json"):
        shutil.copy(f"{EMOJI}/{name}", f)
    return t.T5Tokenizer, 24


def t5_left(f):
    pieces(f)
    t5_config(f, padding_side="left", truncation_side="left", extra_ids=0)
    return t.T5Tokenizer, 12


def clip_published(f):
    """FLUX, SD 3: vocab.json, merges.txt, special_tokens_map.json, the added tokens in the config."""
    vocab = pairs(f)
    full = dict(lstrip=False, normalized=True, rstrip=False, single_word=False)
    write(f, "special_tokens_map.json", dict(bos_token=dict(full, content=BOS), eos_token=dict(full, content=EOS), pad_token=EOS,
                                             unk_token=EOS))
    clip_config(f, added_tokens_decoder=decoder([(vocab[BOS], BOS, True, dict(normalized=True)), (vocab[EOS], EOS, True, {})]),
                add_prefix_space=False, clean_up_tokenization_spaces=True, do_lower_case=True, errors="replace")
    return t.CLIPTokenizer, None


def clip_g(f):
    """SD 3's second: the padding is '!', which also occurs in texts."""
    vocab = pairs(f)
    tokens = [(0, "!", True, {}), (vocab[BOS], BOS, True, dict(normalized=True)), (vocab[EOS], EOS, True, {})]
    clip_config(f, pad_token="!", added_tokens_decoder=decoder(tokens))
    return t.CLIPTokenizer, 16


def clip_first(f):
    """As in the first releases: tokens as objects in the config."""
    pairs(f)
    token = lambda text: dict(__type="AddedToken", content=text, lstrip=False, normalized=True, rstrip=False, single_word=False)
    clip_config(f, bos_token=token(BOS), eos_token=token(EOS), unk_token=token(EOS), do_lower_case=True)
    return t.CLIPTokenizer, None


def clip_long(f):
    pairs(f)
    clip_config(f, model_max_length=248)
    return t.CLIPTokenizer, None


def clip_left(f):
    pairs(f)
    clip_config(f, padding_side="left", truncation_side="left")
    return t.CLIPTokenizer, None


def clip_new_padding(f):
    pairs(f)
    clip_config(f, pad_token="[PAD]")
    return t.CLIPTokenizer, None


def clip_added(f):
    vocab = pairs(f)
    write(f, "added_tokens.json", {"<new>": len(vocab), "[PAD]": len(vocab) + 1})
    clip_config(f, pad_token="[PAD]")
    return t.CLIPTokenizer, None


def clip_saved(f):
    folder = f + ".old"
    os.makedirs(folder)
    clip_added(folder)
    t.CLIPTokenizer.from_pretrained(folder).save_pretrained(f)
    shutil.rmtree(folder)
    return t.CLIPTokenizer, None


CASES = [t5_published, t5_first, t5_bare, t5_saved, t5_emoji, t5_left, clip_published, clip_g, clip_first, clip_long, clip_left,
         clip_new_padding, clip_added, clip_saved]


def ids(case, folder, cls, length):
    tokenizer = cls.from_pretrained(folder)
    length = length or tokenizer.model_max_length
    found = tokenizer(TEXTS, padding="max_length", max_length=length, truncation=True)
    return dict(kind="t5" if cls is t.T5Tokenizer else "clip", length=length, ids=found["input_ids"], mask=found["attention_mask"])


if __name__ == "__main__":
    check = sys.argv[1:] == ["check"]
    path = f"{FOLDER}/golden.json"
    golden = {}
    if check:
        known = json.load(open(path))
        for case in CASES:
            entry, name = known["cases"][case.__name__], case.__name__
            cls = t.T5Tokenizer if entry["kind"] == "t5" else t.CLIPTokenizer
            assert ids(case, f"{FOLDER}/{name}", cls, entry["length"]) == entry, name
        print(f"{len(CASES)} tokenizers as recorded")
    else:
        shutil.rmtree(FOLDER, ignore_errors=True)
        for case in CASES:
            folder = f"{FOLDER}/{case.__name__}"
            os.makedirs(folder)
            cls, length = case(folder)
            golden[case.__name__] = ids(case, folder, cls, length)
        json.dump(dict(texts=TEXTS, cases=golden), open(path, "w"), ensure_ascii=False)
