"""The tokenizer of a foreign language model, made one of ours. Torch-free.

It stays what it is, with one exception: a text-only model lacks the image tokens. They take the
places of reserved tokens (`<|reserved_4|>`, ...), which no text has ever used, or else of embedding
rows that no token uses yet; every other id stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from autoneural.data.tokenizer import (
    IMAGE,
    IMAGE_END,
    IMAGE_START,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    Tokenizer,
    default_chat_template,
)
from autoneural.errors import UserError
from autoneural.files import write_text
from autoneural.hub.folder import ModelFolder

_RESERVED = re.compile(r"<\|reserved_\d+\|>")


class Words(NamedTuple):
    """The text of tokenizer.json and of chat_template.jinja."""

    tokenizer: str
    chat_template: str


def read_words(folder: ModelFolder, vocab_size: int) -> Words:
    """Tokenizer with image tokens, and chat template (ours where the folder has none).

    `vocab_size` is the number of embedding rows. UserError where it is no byte-level BPE, has no
    room for the image tokens, or holds more tokens than the model has rows.
    """
    path, text = folder.path / TOKENIZER_FILE, folder.text(TOKENIZER_FILE)
    data = folder.json(TOKENIZER_FILE)
    if text is None or data is None:
        raise UserError(f"{folder.path}: holds no {TOKENIZER_FILE}")
    try:
        kind, decoder = data["model"]["type"], data["decoder"]["type"]
        if (kind, decoder) != ("BPE", "ByteLevel"):
            raise UserError(f"{path}: a {kind} with decoder {decoder}, not a byte-level BPE")
        changed = _add_image_tokens(data, vocab_size, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a tokenizer file ({error!r})") from error
    template = _chat_template(folder) or default_chat_template()
    words = Words(json.dumps(data, ensure_ascii=False) if changed else text, template)
    _check(words, vocab_size, path)
    return words


@contextmanager
def tokenizer_folder(words: Words) -> Iterator[Path]:
    """`words` as a folder, which is what a checkpoint is made with."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / TOKENIZER_FILE, words.tokenizer)
        write_text(folder / TEMPLATE_FILE, words.chat_template)
        yield folder


def _chat_template(folder: ModelFolder) -> str | None:
    """As transformers looks for it: a file of its own, then what the tokenizer's settings say."""
    text = folder.text(TEMPLATE_FILE)
    for name in ("chat_template.json", "tokenizer_config.json"):
        if text is None:
            text = (folder.json(name) or {}).get("chat_template")
    if isinstance(text, list):
        named = {t.get("name"): t.get("template") for t in text if isinstance(t, dict)}
        text = named.get("default")
    if text is not None and not isinstance(text, str):
        raise UserError(f"{folder.path}: its chat template is not a text")
    return text


def _add_image_tokens(data: dict[str, Any], vocab_size: int, path: Path) -> bool:
    """Give `data` the image tokens that it lacks; whether there were any."""
    added = {token["content"]: token for token in data["added_tokens"]}
    missing = [token for token in (IMAGE, IMAGE_START, IMAGE_END) if token not in added]
    reserved = sorted((t for name, t in added.items() if _RESERVED.fullmatch(name)), key=_id)
    for token in missing:
        if reserved:
            old = reserved.pop(0)
            _rename(data["model"]["vocab"], old["content"], token)
            old["content"] = token
        else:
            _append(data, token, vocab_size, path)
    return bool(missing)


def _rename(vocab: dict[str, int], old: str, new: str) -> None:
    if old in vocab:
        vocab[new] = vocab.pop(old)


def _append(data: dict[str, Any], token: str, vocab_size: int, path: Path) -> None:
    used = [*data["model"]["vocab"].values(), *(_id(t) for t in data["added_tokens"])]
    row = max(used) + 1
    if row >= vocab_size:
        raise UserError(f"{path}: no reserved token and no free row of {vocab_size} for {token}")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    data["added_tokens"].append({"id": row, "content": token, **flags, "special": True})


def _id(token: dict[str, Any]) -> int:
    return token["id"]


def _check(words: Words, vocab_size: int, path: Path) -> None:
    with tokenizer_folder(words) as folder:
        try:
            made = Tokenizer.load(folder)
            # A broken template is refused now, not at the first conversation.
            made.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "?"}]}])
        except UserError as error:
            raise UserError(f"{path}: {_without_folder(str(error), folder)}") from error
    if made.vocab_size > vocab_size:
        raise UserError(f"{path}: {made.vocab_size} tokens for {vocab_size} embedding rows")


def _without_folder(message: str, folder: Path) -> str:
    """The temporary folder means nothing to a reader."""
    return message.replace(f"{folder}/{TOKENIZER_FILE}: ", "").replace(f"{folder}/", "")
