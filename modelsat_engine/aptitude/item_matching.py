"""Which item of an aptitude test a question is, known by its id, by its content, or by both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelsat_engine.aptitude.questions import Question
from modelsat_engine.aptitude.test import AptitudeTest


class ItemMatcher:
    """Finds items of one test by their ids or by their content hashes.

    Args:
        test: the test; its own content hashes are used where it has some.
        questions: texts of (some of) its items, which give more hashes. A file may leave out the prefix that all
            ids of the test share: its "70" is then the test's "mmlu_pro/70".
        trust_ids: take an id for what it says even where the content differs from what is known of the item.
    """

    def __init__(self, test: AptitudeTest, questions: Iterable[Question] = (), *, trust_ids: bool = False) -> None:
        self.hash_of = dict(test.item_hashes)
        self.prefix = common_prefix(test)
        self._items = test.item_ids
        for question in questions:
            for item in (question.id, self.prefix + question.id):
                if item in self._items:
                    self.hash_of.setdefault(item, question.hash)
                    break
        self._item_of = {content: item for item, content in self.hash_of.items()}
        self._trust_ids = trust_ids

    @property
    def knows_content(self) -> bool:
        """Whether a hash can find anything, so that it is worth computing."""
        return bool(self._item_of)

    def find(self, ids: Sequence[str] = (), content: str | None = None) -> tuple[str | None, bool]:
        """(the item or None, whether an id was refused because the content differs).

        Args:
            ids: names under which the test may know the question, the surest first.
            content: :attr:`Question.hash`, where the text is known.
        """
        if content is not None and content in self._item_of:
            return self._item_of[content], False
        item = next((name for name in ids if name in self._items), None)
        known = self.hash_of.get(item) if item is not None else None
        if item is not None and content is not None and known is not None and not self._trust_ids:
            return None, True
        return item, False


def common_prefix(test: AptitudeTest) -> str:
    """What every item id starts with, up to its first "/" ("mmlu_pro/" in the shipped test), or ""."""
    heads = {item.partition("/")[0] if "/" in item else "" for item in test.item_ids}
    head = next(iter(heads))
    return f"{head}/" if len(heads) == 1 and head else ""
