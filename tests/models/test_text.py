import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from sop_jax.models.pi05.policy import TOKENIZER_VARIABLE
from sop_jax.models.pi05.prompt import append_state
from sop_jax.models.registry import PRESETS, create_model
from sop_jax.models.text import HashTokenizer, PaliGemmaTokenizer
from sop_jax.specs.errors import MissingDependencyError


def test_hashed_words_are_the_same_everywhere():
    tokens, mask = HashTokenizer(vocab_size=65536, max_tokens=6).encode(["Put the RED can!", "red"])
    assert mask.tolist() == [[True] * 4 + [False] * 2, [True] + [False] * 5]
    # Written down once: ids must never change, or trained models would forget their language.
    assert tokens[0].tolist() == [36006, 3286, 17822, 10457, 0, 0]
    assert tokens[1, 0] == tokens[0, 2]


@settings(max_examples=50)
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


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def sentencepiece_model(request, tmp_path_factory) -> str:
    """A small vocabulary; the second has PaliGemma's options: byte pairs, bytes for what is unknown, no blank in front."""
    directory = tmp_path_factory.mktemp("tokenizer")
    corpus = directory / "corpus.txt"
    words = [(colour, side) for colour in ("red", "blue") for side in ("left", "right")]
    lines = [f"Task: put the {c} can on the {s} shelf, State: {i} {i * 7 % 256};" for i in range(256) for c, s in words]
    corpus.write_text("\n".join(lines) + "\nAction: go\n")
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(directory / "tiny"),
        vocab_size=120 if request.param == "unigram" else 400,
        model_type=request.param,
        split_digits=True,
        byte_fallback=request.param == "bpe",
        add_dummy_prefix=request.param == "unigram",
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


def openpi_tokens(model_path: str, prompt: str, state: np.ndarray | None) -> list[int]:
    """openpi's `PaligemmaTokenizer.tokenize`, written down from its description; without padding."""
    processor = sentencepiece.SentencePieceProcessor(model_file=model_path)
    text = prompt.strip().replace("_", " ").replace("\n", " ")
    if state is None:
        return processor.encode(text, add_bos=True) + processor.encode("\n")
    numbers = " ".join(map(str, np.digitize(state, bins=np.linspace(-1, 1, 256 + 1)[:-1]) - 1))
    return processor.encode(f"Task: {text}, State: {numbers};\nAction: ", add_bos=True)


@pytest.mark.parametrize("prompt", ["put the red can on the left shelf", " take_the\nblue  can", "Göteborg 42!", ""])
def test_what_the_model_reads_is_openpis_prompt(sentencepiece_model, prompt):
    state = np.random.default_rng(0).uniform(-1, 1, (3, 7)).astype(np.float32)
    tokenizer = PaliGemmaTokenizer(sentencepiece_model, max_tokens=60)
    tokens, mask = tokenizer.encode([prompt] * 3)
    tokens, mask = append_state(tokenizer, jnp.asarray(state), jnp.asarray(tokens), jnp.asarray(mask))
    for row in range(3):
        assert np.asarray(tokens[row])[np.asarray(mask[row])].tolist() == openpi_tokens(
            sentencepiece_model, prompt, state[row]
        )
    plain = PaliGemmaTokenizer(sentencepiece_model, max_tokens=60, with_state=False)
    tokens, mask = plain.encode([prompt])
    assert tokens[0][mask[0]].tolist() == openpi_tokens(sentencepiece_model, prompt, None)
    assert (tokens[~mask] == 0).all()


def test_the_config_says_which_prompt(sentencepiece_model, monkeypatch):
    monkeypatch.setenv(TOKENIZER_VARIABLE, sentencepiece_model)
    for preset, state in (("pi05", True), ("pi0", False)):
        tokens, mask = create_model(PRESETS[preset]).tokenize(["put the red can"])
        whole = openpi_tokens(sentencepiece_model, "put the red can", np.zeros(1) if state else None)
        found = tokens[0][mask[0]].tolist()
        assert found == whole[: len(found)]
        assert (len(found) < len(whole)) == state  # pi0.5's numbers and closing are added inside the model
        assert tokens.shape == (1, 48)


def test_a_missing_vocabulary_is_named():
    with pytest.raises(MissingDependencyError, match=r"no file at '/nowhere'.*SOP_PALIGEMMA_TOKENIZER"):
        PaliGemmaTokenizer("/nowhere").encode(["x"])
