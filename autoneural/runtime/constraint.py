"""Answers of a given form: which tokens may come next, by JSON schema, regular expression, grammar.

    schema + tokenizer -> Constraint -> per answer: logits [V] -> mask -> sample -> accept -> ...

The automata are llguidance's (extra [schema]); its compiler reads no files and fetches no URLs.
JSON comes out on one line, with the properties in the order of the schema and at most one space
after a comma or colon: models, small ones above all, lose themselves in white space.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.runtime.schema import check_pattern, check_schema, walk

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# Given with every schema, so that a schema cannot set them: `lenient` would ignore keywords.
JSON_OPTIONS: dict[str, Any] = {
    "lenient": False,
    "coerce_one_of": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "whitespace_flexible": False,
    "whitespace_pattern": None,
}
_SEARCH_SECONDS = 0.2
_WORDS = {
    " <non-verbose/>": "",
    "NoExtensionBias": "no answer can satisfy it",
    ". Enable 'coerce_one_of' option to approximate oneOf with anyOf": " here; anyOf is",
}


class Constraint:
    """What an answer may look like. Compiled once; a `copy` has the progress of one answer.

    The class methods raise UserError, in one line, for what cannot be compiled and when llguidance
    is not installed. `where` is how that line begins.
    """

    def __init__(self, matcher: LLMatcher, where: str) -> None:
        self._matcher = matcher
        self._where = where

    @classmethod
    def json_schema(
        cls, schema: dict[str, Any], tokenizer: Tokenizer, where: str = "json_schema"
    ) -> Constraint:
        """JSON that a schema (draft 2020-12) allows; a keyword that is unknown here is an error."""
        check_schema(schema, where)
        try:
            grammar = _json_grammar(schema)
        except ValueError as error:  # half a letter, or a number that is too large
            raise UserError(f"{where}: {_readable(str(error))}") from error
        if error := _error(grammar, tokenizer):
            raise UserError(f"{where}: {_place(schema, error, tokenizer)}{_readable(error)}")
        return cls(_matcher(grammar, tokenizer), where)

    @classmethod
    def json_object(cls, tokenizer: Tokenizer) -> Constraint:
        """Any JSON object."""
        return cls.json_schema({"type": "object"}, tokenizer, "json_object")

    @classmethod
    def regex(cls, pattern: str, tokenizer: Tokenizer, where: str = "regex") -> Constraint:
        """Text that a regular expression, without look-around, matches as a whole."""
        check_pattern(pattern, where)
        return cls._compile(_library().LLMatcher.grammar_from_regex(pattern), tokenizer, where)

    @classmethod
    def lark(cls, grammar: str, tokenizer: Tokenizer, where: str = "grammar") -> Constraint:
        """Text of a context-free grammar in llguidance's form of Lark, written by one's own code.

        Repetitions are not counted: not for grammars from outside.
        """
        return cls._compile(_library().LLMatcher.grammar_from_lark(grammar), tokenizer, where)

    @classmethod
    def _compile(cls, grammar: str, tokenizer: Tokenizer, where: str) -> Constraint:
        if error := _error(grammar, tokenizer):
            raise UserError(f"{where}: {_readable(error)}")
        return cls(_matcher(grammar, tokenizer), where)

    def copy(self) -> Constraint:
        """The same constraint, as far as this one has come, for another answer."""
        return Constraint(self._matcher.deep_copy(), self._where)

    @property
    def finished(self) -> bool:
        """Whether nothing may follow any more."""
        return self._matcher.is_stopped()

    def mask(self, logits: np.ndarray) -> np.ndarray:
        """`logits` [V] with -inf for every token that may not come next.

        The end token may come as soon as the answer is whole. Raises UserError where following the
        constraint would take too long.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        # The bits cover the vocabulary; a model may have more rows, or the last byte more bits.
        allowed = np.unpackbits(bits, bitorder="little")[: len(logits)].nonzero()[0]
        masked = np.full_like(logits, -np.inf)
        masked[allowed] = logits[allowed]
        return masked

    def forced(self, most: int) -> list[int]:
        """Up to `most` tokens that spell what must come next, whatever is said.

        The usual ones for that text: `mask` may leave others that spell the same.
        """
        return list(self._matcher.compute_ff_tokens()[:most])

    def accept(self, token: int) -> None:
        """Go on to what may follow `token`, which must be one that `mask` left."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            error = _readable(self._matcher.get_error())
            raise UserError(f"{self._where}: too complex to be followed ({error})")


class _Vocabulary:
    """What llguidance asks of a tokenizer: the bytes of every token, and how text is cut."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokens = tokenizer.byte_table()
        self.eos_token_id = tokenizer.eos_id
        self.bos_token_id = tokenizer.bos_id
        # All of them, so that none can stand inside a string: what is shown leaves them out.
        self.special_token_ids = sorted(tokenizer.special_ids)
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, parse_special=False)


def _library() -> Any:
    try:
        import llguidance
    except ModuleNotFoundError as error:
        raise UserError(
            "structured answers need llguidance, of the extra [schema]: "
            "pip install 'autoneural[schema]', or `make setup` in a clone"
        ) from error
    return llguidance


# Seconds for a large vocabulary, hence kept; bounded, as programs may open many bundles.
@functools.lru_cache(maxsize=4)
def _table(tokenizer: Tokenizer) -> LLTokenizer:
    library = _library()
    return library.LLTokenizer(library.TokenizerWrapper(_Vocabulary(tokenizer)))


def _json_grammar(schema: dict[str, Any]) -> str:
    return _library().LLMatcher.grammar_from_json_schema(schema, overrides=JSON_OPTIONS)


def _matcher(grammar: str, tokenizer: Tokenizer) -> LLMatcher:
    library = _library()
    limits = library.LLParserLimits(verbose_errors=False)
    return library.LLMatcher(_table(tokenizer), grammar, log_level=0, limits=limits)


def _error(grammar: str, tokenizer: Tokenizer) -> str:
    """Why a grammar cannot be used, or nothing."""
    matcher = _matcher(grammar, tokenizer)
    if not matcher.is_error():
        # Some faults, as a schema that is nothing but itself, show at the first token.
        matcher.compute_bitmask()
    return matcher.get_error()


def _place(schema: dict[str, Any], error: str, tokenizer: Tokenizer) -> str:
    """'/properties/age: ', the innermost part that fails in the same way alone; '' if none does."""
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    found, until = "", time.monotonic() + _SEARCH_SECONDS
    for pointer, part in walk(schema, ""):
        if not pointer:
            continue  # the whole of it
        if time.monotonic() > until:
            break
        inside = not found or pointer.startswith(f"{found}/")
        if inside and _error(_json_grammar({**part, **shared}), tokenizer) == error:
            found = pointer
    return f"{found}: " if found else ""


def _readable(error: str) -> str:
    """One line of llguidance's message, without options that only its own callers can set."""
    line = "".join(letter for letter in " ".join(error.split()) if letter.isprintable())
    if line.startswith("panic:"):  # where it cuts a long value of the wrong type inside a letter
        return "a value of the wrong type, or one that llguidance cannot read"
    for theirs, ours in _WORDS.items():
        line = line.replace(theirs, ours)
    return line if len(line) <= 300 else f"{line[:300]}..."
