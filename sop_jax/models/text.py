"""Instructions as token ids, on the host.

Legend: `B` texts, `L` tokens, `W` tokens of one number.
"""

import dataclasses
import functools
import hashlib
import pathlib
import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import sentencepiece
from jaxtyping import Bool, Int32

from sop_jax.specs.errors import MissingDependencyError

Tokens = tuple[Int32[np.ndarray, "B L"], Bool[np.ndarray, "B L"]]
"""Token ids, padded on the right with 0, and the mask that is False on padding."""


@runtime_checkable
class Tokenizer(Protocol):
    """Texts to token ids. Hashable and stateless to its callers; thread-safe."""

    def encode(self, texts: Sequence[str]) -> Tokens:
        """The instruction's part of the prompt. Raises ValueError if a text has more tokens than fit."""
        ...

    def number_tokens(self, count: int) -> Tokens:
        """Row i holds the tokens that write the number i, for i in [0, count), inside the prompt: [count, W]."""
        ...

    def closing_tokens(self) -> Int32[np.ndarray, " L"]:
        """What follows the last number."""
        ...


@dataclasses.dataclass(frozen=True)
class HashTokenizer:
    """Lower-case words and numbers, each hashed to an id: no vocabulary to build, keep or ship.

    Ids: 0 is padding, the last `num_numbers` ids are numbers of the state, and the words share the rest. Two words
    collide with probability 1 / (vocab_size - num_numbers - 1).
    """

    vocab_size: int = 65536
    max_tokens: int = 24
    num_numbers: int = 0

    def encode(self, texts: Sequence[str]) -> Tokens:
        tokens = np.zeros((len(texts), self.max_tokens), np.int32)
        mask = np.zeros((len(texts), self.max_tokens), bool)
        known: dict[str, list[int]] = {}
        for row, text in enumerate(texts):
            ids = known.get(text)
            if ids is None:
                ids = known[text] = [self._hash(word) for word in re.findall(r"[a-z0-9]+", text.lower())]
            fill_row(tokens, mask, row, ids, text)
        return tokens, mask

    def number_tokens(self, count: int) -> Tokens:
        if count > self.num_numbers:
            raise ValueError(f"this HashTokenizer keeps ids for {self.num_numbers} numbers, asked for {count}")
        ids = np.arange(count, dtype=np.int32)[:, None] + self.vocab_size - self.num_numbers
        return ids, np.ones(ids.shape, bool)

    def closing_tokens(self) -> Int32[np.ndarray, " L"]:
        return np.zeros(0, np.int32)

    def _hash(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        return 1 + int.from_bytes(digest, "little") % (self.vocab_size - self.num_numbers - 1)


@dataclasses.dataclass(frozen=True)
class PaliGemmaTokenizer:
    """Prompts in PaliGemma's vocabulary, token for token as openpi's.

    with_state: pi0.5's `Task: {instruction}, State: {n} {n} ...;\\nAction: `. `encode` gives the part up to `State:`; the
        numbers and the closing follow inside the model. That is exact because the vocabulary splits numbers into digits,
        which is checked when it is loaded. Without it (pi0, and pi0.5 without state): the instruction, and a line break
        that is encoded by itself.
    """

    model_path: str
    max_tokens: int = 48
    with_state: bool = True

    def encode(self, texts: Sequence[str]) -> Tokens:
        tokens = np.zeros((len(texts), self.max_tokens), np.int32)
        mask = np.zeros((len(texts), self.max_tokens), bool)
        for row, text in enumerate(texts):
            if self.with_state:
                ids = self._processor.encode(f"Task: {clean_text(text)}, State:")
            else:
                ids = [*self._processor.encode(clean_text(text)), *self._processor.encode("\n")]
            fill_row(tokens, mask, row, [self._processor.bos_id(), *ids], text)
        return tokens, mask

    def number_tokens(self, count: int) -> Tokens:
        rows = [self._continuation("State: 0", f"State: 0 {number}") for number in range(count)]
        tokens = np.zeros((count, max(map(len, rows))), np.int32)
        mask = np.zeros(tokens.shape, bool)
        for row, ids in enumerate(rows):
            fill_row(tokens, mask, row, ids, str(row))
        return tokens, mask

    def closing_tokens(self) -> Int32[np.ndarray, " L"]:
        return np.asarray(self._continuation("State: 0", "State: 0;\nAction: "), np.int32)

    def encode_prompt(self, instruction: str, numbers: Sequence[int]) -> list[int]:
        """The whole prompt at once, on the host: the reference for what the model assembles."""
        text = f"Task: {clean_text(instruction)}, State: {' '.join(map(str, numbers))};\nAction: "
        return [self._processor.bos_id(), *self._processor.encode(text)]

    def _continuation(self, start: str, text: str) -> list[int]:
        before, ids = self._processor.encode(start), self._processor.encode(text)
        if ids[: len(before)] != before:
            raise ValueError(
                f"{self.model_path}: the tokens of {text!r} do not begin with those of {start!r}, so this vocabulary does "
                "not split numbers into digits. Use PaliGemma's."
            )
        return ids[len(before) :]

    @functools.cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        if not pathlib.Path(self.model_path).is_file():
            raise MissingDependencyError(
                f"PaliGemma's SentencePiece model is needed for this policy; no file at {self.model_path!r}. Download "
                "paligemma_tokenizer.model (big_vision) and set SOP_PALIGEMMA_TOKENIZER to its path."
            )
        return sentencepiece.SentencePieceProcessor(model_file=self.model_path)


def clean_text(text: str) -> str:
    """As openpi does: no outer blanks, no underscores, no line breaks."""
    return text.strip().replace("_", " ").replace("\n", " ")


def fill_row(tokens: np.ndarray, mask: np.ndarray, row: int, ids: Sequence[int], text: str) -> None:
    """Writes `ids` and their mask into one row. Raises ValueError if they do not fit."""
    if len(ids) > tokens.shape[1]:
        raise ValueError(
            f"instruction {text!r} has {len(ids)} tokens, the model takes at most {tokens.shape[1]}. Shorten it, or train "
            "a model with a larger `max_tokens`."
        )
    tokens[row, : len(ids)] = ids
    mask[row, : len(ids)] = True
