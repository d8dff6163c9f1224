"""One-shot data, such as a generator, whose beginning can be looked at before all of it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Restartable:
    """An iterator's items: :meth:`peek` takes none away, a plain iteration gives all of them, once."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self.iterator = iterator
        self.peeked: list[Any] = []

    @classmethod
    def of(cls, data: Any) -> Any:
        """``data`` itself if it can be iterated over again and again."""
        return cls(data) if isinstance(data, Iterator) else data

    def peek(self) -> Iterator[Any]:
        """The items from the first on; those that are taken are kept."""
        yield from self.peeked
        for item in self.iterator:
            self.peeked.append(item)
            yield item

    def __iter__(self) -> Iterator[Any]:
        while self.peeked:
            yield self.peeked.pop(0)
        yield from self.iterator
