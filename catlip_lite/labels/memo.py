"""What was looked up once need not be looked up again: distinct words and pieces of captions, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Memo:
    """Remembers what a function gives for distinct words, and forgets all at `limit` entries, so that memory stays flat."""

    def __init__(self, function: Callable[[str], object], limit: int = 1 << 19):
        self.function, self.limit = function, limit
        self.known: dict[str, object] = {}

    def __call__(self, words: Sequence[str]) -> list:
        """The function's value for each word, in order."""
        known = self.known
        if len(known) + len(words) > self.limit:
            known.clear()
        for word in words:
            if word not in known:
                known[word] = self.function(word)
        return [known[word] for word in words]

    def of(self, word: str) -> object:
        """The function's value for one word."""
        if word not in self.known:
            return self([word])[0]
        return self.known[word]
