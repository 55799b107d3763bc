import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.models.text import HashTokenizer, PaliGemmaTokenizer
from sop_jax.specs.errors import MissingDependencyError


def test_hashed_words_are_the_same_everywhere():
    tokens, mask = HashTokenizer(vocab_size=65536, max_tokens=6).encode(["Put the RED can!", "red"])
    assert mask.tolist() == [[True] * 4 + [False] * 2, [True] + [False] * 5]
    # Written down once: ids must never change, or trained models would forget their language.
    assert tokens[0].tolist() == [36006, 3286, 17822, 10457, 0, 0]
    assert tokens[1, 0] == tokens[0, 2]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_ids_stay_in_their_range(text):
    tokens, mask = HashTokenizer(vocab_size=300, max_tokens=64, num_numbers=256).encode([text])
    assert (tokens[mask] >= 1).all()
    assert (tokens[mask] < 300 - 256).all()
    assert (tokens[~mask] == 0).all()


def test_numbers_have_ids_of_their_own():
    ids, mask = HashTokenizer(vocab_size=300, num_numbers=256).number_tokens(256)
    assert ids[:, 0].tolist() == list(range(44, 300))
    assert mask.all()
    with pytest.raises(ValueError, match="keeps ids for 0 numbers, asked for 256"):
        HashTokenizer().number_tokens(256)


def test_too_long_instructions_are_refused():
    with pytest.raises(ValueError, match=r"'a b c' has 3 tokens, the model takes at most 2.*max_tokens"):
        HashTokenizer(max_tokens=2).encode(["a b c"])


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("tokenizer")
    corpus = directory / "corpus.txt"
    words = [(colour, side) for colour in ("red", "blue") for side in ("left", "right")]
    lines = [f"Task: put the {c} can on the {s} shelf, State: {i} {i * 7 % 256};" for i in range(256) for c, s in words]
    corpus.write_text("\n".join(lines) + "\nAction: go\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(directory / "tiny"),
        vocab_size=120,
        split_digits=True,
        byte_fallback=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["\n"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return str(directory / "tiny.model")


def test_the_prompt_in_parts_is_the_prompt_at_once(sentencepiece_model):
    tokenizer = PaliGemmaTokenizer(sentencepiece_model, max_tokens=40)
    tokens, mask = tokenizer.encode(["put the\nred_can "])
    ids, id_mask = tokenizer.number_tokens(256)
    numbers = [0, 7, 42, 255, 128]
    parts = [tokens[0][mask[0]], *(ids[n][id_mask[n]] for n in numbers), tokenizer.closing_tokens()]
    assert np.concatenate(parts).tolist() == tokenizer.encode_prompt("put the red can", numbers)
    assert tokens[0, 0] == sentencepiece.SentencePieceProcessor(model_file=sentencepiece_model).bos_id()


def test_a_missing_vocabulary_is_named():
    with pytest.raises(MissingDependencyError, match=r"no file at '/nowhere'.*SOP_PALIGEMMA_TOKENIZER"):
        PaliGemmaTokenizer("/nowhere").encode(["x"])
