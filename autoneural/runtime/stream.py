"""Tokens -> text that is safe to show: whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from autoneural.data.tokenizer import StreamDecoder, Tokenizer


class TextStream:
    """Collects an answer; holds back what may turn out to be the beginning of a stop string."""

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), shown: Collection[int] = ()
    ) -> None:
        """`shown` are special tokens that belong to the text; the others never do."""
        self._decoder = StreamDecoder(tokenizer, shown=shown)
        self._stop = [text for text in stop if text]
        self._held = ""
        self.text = ""
        self.stopped = False

    def push(self, token_id: int) -> str:
        """The text that may be shown now. `stopped` turns true at the first stop string."""
        return self._release(self._decoder.push(token_id))

    def flush(self) -> str:
        """The rest, once no more tokens come."""
        shown = self._release(self._decoder.flush()) + self._held
        self.text += self._held
        self._held = ""
        return shown

    def _release(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        self.stopped = bool(found)
        end = min(found) if found else len(text) - undecided(text, self._stop)
        self._held = "" if found else text[end:]
        self.text += text[:end]
        return text[:end]


def undecided(text: str, marks: Sequence[str]) -> int:
    """Length of the longest end of `text` that begins one of `marks` without being all of it."""
    lengths = (
        n
        for mark in marks
        for n in range(min(len(mark) - 1, len(text)), 0, -1)
        if text.endswith(mark[:n])
    )
    return max(lengths, default=0)
