"""Byte-level BPE with LFM2-VL's special tokens and chat template. Torch-free.

Text from outside is data. `apply_chat_template` marks every place in a message (or tool list) where
a special token's string begins, with code points that Unicode reserves for internal use; `encode`
cuts the text there, so that the string is read as letters:

    user text    "a<|im_end|>b"           template adds   "<|im_end|>"
    rendered     "a<{cut}|im_end|>b<|im_end|>"
    encoded      [a <] [|im_end|>b] [eos]
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar

import tokenizers
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from autoneural.data.messages import Message, normalise_messages
from autoneural.data.tool_calls import CALL_END, CALL_START, render_calls
from autoneural.errors import UserError
from autoneural.files import write_text

PAD, BOS, EOS = "<|pad|>", "<|startoftext|>", "<|im_end|>"
TURN_START = "<|im_start|>"
IMAGE, IMAGE_START, IMAGE_END = "<image>", "<|image_start|>", "<|image_end|>"
IMAGE_THUMBNAIL = "<|img_thumbnail|>"
SPECIAL_TOKENS = (
    PAD,
    BOS,
    "<|endoftext|>",
    "<|fim_pre|>",
    "<|fim_mid|>",
    "<|fim_suf|>",
    TURN_START,
    EOS,
    "<|tool_list_start|>",
    "<|tool_list_end|>",
    CALL_START,
    CALL_END,
    "<|tool_response_start|>",
    "<|tool_response_end|>",
    IMAGE,
    IMAGE_START,
    IMAGE_END,
    IMAGE_THUMBNAIL,
)
TOKENIZER_FILE, TEMPLATE_FILE = "tokenizer.json", "chat_template.jinja"

# U+FDD0 leads both marks; one that the user wrote becomes _LITERAL, so no text can forge a mark.
_LEAD = "\ufdd0"
_LITERAL, _CUT = "\ufdd0\ufdd1", "\ufdd0\ufdd2"
# Contractions, words with their space, single digits, punctuation runs, line ends, spaces.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """Text <-> token ids, and conversations -> text.

    `pad_id`, `bos_id`, `eos_id` (`<|im_end|>`), `image_id`, `image_start`, `image_end` and
    `turn_start` are read from the vocabulary: they differ between ours and LFM2-VL's own.
    """

    def __init__(self, backend: tokenizers.Tokenizer, chat_template: str) -> None:
        self._backend = backend
        self._template_text = chat_template
        self._added = {t.content: i for i, t in backend.get_added_tokens_decoder().items()}
        self.pad_id = self.special_id(PAD)
        self.bos_id = self.special_id(BOS)
        self.eos_id = self.special_id(EOS)
        self.turn_start = self.special_id(TURN_START)
        self.image_id = self.special_id(IMAGE)
        self.image_start = self.special_id(IMAGE_START)
        self.image_end = self.special_id(IMAGE_END)
        # Longest first, so that a token which starts another one does not hide it.
        ordered = sorted(self._added, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, ordered))})")
        self._begins = re.compile(_begin_pattern(ordered))

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read `tokenizer.json` and `chat_template.jinja`; UserError if one is absent or broken."""
        path, template = Path(folder) / TOKENIZER_FILE, Path(folder) / TEMPLATE_FILE
        for file in (path, template):
            if not file.is_file():
                raise UserError(f"{file}: no such file; a tokenizer folder holds it")
        try:
            backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        # The Rust side raises bare Exception for a damaged file.
        except Exception as error:
            raise UserError(f"{path}: not a tokenizer file ({_first_line(error)})") from error
        try:
            return cls(backend, template.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{template}: not UTF-8 ({error})") from error

    def save(self, folder: str | Path) -> None:
        """Write `chat_template.jinja`, then `tokenizer.json`, into `folder`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_text(Path(folder) / TEMPLATE_FILE, self._template_text)
        write_text(Path(folder) / TOKENIZER_FILE, self._backend.to_str())

    @property
    def vocab_size(self) -> int:
        """Number of ids in use; a model may have more rows."""
        return self._backend.get_vocab_size()

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._added.values())

    def special_id(self, token: str) -> int:
        """Id of a special token. UserError when the vocabulary has none of that name."""
        if token not in self._added:
            raise UserError(f"tokenizer: no special token {token}; use an LFM2-VL tokenizer")
        return self._added[token]

    def encode(self, text: str, parse_special: bool = True) -> list[int]:
        """Token ids of `text`; nothing is added in front.

        Special-token strings become special tokens, except those that `apply_chat_template`
        found in message texts. For text from outside pass `parse_special=False`.
        """
        ids: list[int] = []
        for piece in self._split.split(text if parse_special else self._neutralise(text)):
            if piece in self._added:
                ids.append(self._added[piece])
            elif piece:
                ids.extend(self._encode_data(piece))
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Text of `ids`; bytes that are no UTF-8 become U+FFFD, ids without a token nothing."""
        decoder = StreamDecoder(self, skip_special)
        return "".join([decoder.push(i) for i in ids]) + decoder.flush()

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for (empty for an id beyond the vocabulary)."""
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        if token in self._added:
            return token.encode()
        alphabet = _byte_of_letter()
        return bytes(alphabet[letter] for letter in token if letter in alphabet)

    def byte_table(self) -> list[bytes]:
        """The bytes of every token, by id, up to the largest; ids without a token have none."""
        return [self.token_bytes(i) for i in range(max(self._backend.get_vocab().values()) + 1)]

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[dict[str, Any] | str] | None = None,
    ) -> str:
        """The conversation as the model reads it, one `<image>` per image part.

        For `encode`. Special-token strings inside the messages carry marks (see the module).
        """
        template = self._template
        try:
            return template.render(
                messages=[self._escape(m) for m in normalise_messages(list(messages))],
                tools=self._neutralise_tree(list(tools)) if tools else None,
                add_generation_prompt=add_generation_prompt,
                bos_token=BOS,
                eos_token=EOS,
            )
        # A template is a program from outside: 1/0, endless recursion, a range too long.
        except Exception as error:
            raise UserError(f"{TEMPLATE_FILE}: {_first_line(error)}") from error

    @functools.cached_property
    def _template(self) -> Any:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        # Jinja's own filter escapes < and & for HTML, which the model has never seen.
        environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
        environment.globals["raise_exception"] = _raise_template_error
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        try:
            return environment.from_string(self._template_text)
        except Exception as error:
            raise UserError(f"{TEMPLATE_FILE}: {_first_line(error)}") from error

    def _escape(self, message: Message) -> Message:
        parts = [self._escape_part(part) for part in message["content"]]
        # A cut, so that "assistant\n" + "\nYes" has the same ids as the generation prompt.
        if message["role"] == "assistant" and parts[0]["text"][:1].isspace():
            parts[0]["text"] = _CUT + parts[0]["text"]
        # Written here, as templates differ in whether they write calls; the marks are real tokens.
        if calls := message.get("tool_calls"):
            inside = self._neutralise(render_calls(calls))
            parts[0]["text"] = f"{CALL_START}{inside}{CALL_END}{parts[0]['text']}"
        message = {key: value for key, value in message.items() if key != "tool_calls"}
        # Templates of text-only models know only strings.
        if all(part["type"] == "text" for part in parts):
            return {**message, "content": "".join(part["text"] for part in parts)}
        return {**message, "content": parts}

    def _escape_part(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] == "image":
            return {"type": "image"}
        return {"type": "text", "text": self._neutralise(part["text"])}

    def _neutralise(self, text: str) -> str:
        return self._begins.sub(rf"\g<0>{_CUT}", text.replace(_LEAD, _LITERAL))

    def _neutralise_tree(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._neutralise(value)
        if isinstance(value, dict):
            return {self._neutralise(str(k)): self._neutralise_tree(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._neutralise_tree(item) for item in value]
        return value

    def _encode_data(self, text: str) -> list[int]:
        """Ids of a stretch without special tokens."""
        ids: list[int] = []
        for piece in text.split(_CUT):
            # Lone surrogates (JSON "\ud800") have no UTF-8 form.
            clean = piece.replace(_LITERAL, _LEAD).encode("utf-8", "replace").decode("utf-8")
            ids.extend(self._backend.encode(clean, add_special_tokens=False).ids)
        return ids


class _Generation(Extension):
    """`{% generation %}` of LFM2.5's template marks the assistant's text; here it adds nothing."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class StreamDecoder:
    """Turns ids into text one at a time and never emits half a character."""

    def __init__(
        self, tokenizer: Tokenizer, skip_special: bool = True, shown: Collection[int] = ()
    ) -> None:
        """`shown` are special tokens that are not skipped."""
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids.difference(shown) if skip_special else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that became complete with this token; often empty inside a character."""
        if token_id in self._skipped:
            return ""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else nothing."""
        return self._utf8.decode(b"", final=True)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a byte-level BPE of at most `vocab_size` ids from `texts`.

    Every string can be encoded (256 byte tokens), digits are single tokens, special tokens have the
    ids 0 to 17. Raises UserError when `vocab_size` is too small for that.
    """
    least = 256 + len(SPECIAL_TOKENS)
    if vocab_size < least:
        raise UserError(f"vocab_size: {vocab_size} is below {least} (bytes and special tokens)")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, default_chat_template())


def default_chat_template() -> str:
    """The chat template that ships with the package (LFM2-VL's format)."""
    return resources.files("autoneural.data").joinpath(TEMPLATE_FILE).read_text(encoding="utf-8")


def _begin_pattern(tokens: Sequence[str]) -> str:
    """Matches the first letter of any token, also one that the end of the text cuts short.

    Cut short counts because the next part of the message could complete it.
    """
    rests = [f"{re.escape(t[0])}(?={_rest(t[1:])})" for t in tokens]
    return "|".join(rests)


def _rest(text: str) -> str:
    """'abc' -> (?:\\Z|a(?:\\Z|b(?:\\Z|c))): the text, or as much of it as there is."""
    return f"(?:\\Z|{re.escape(text[0])}{_rest(text[1:])})" if text else ""


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's printable letter for each byte, inverted."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + i): byte for i, byte in enumerate(others)}


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
