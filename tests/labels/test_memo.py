"""What is remembered of distinct words, and that it does not grow without end."""

from catlip_lite.labels.memo import Memo


def test_a_memo_asks_once_for_each_word():
    asked = []
    memo = Memo(lambda word: asked.append(word) or word.upper())
    assert (memo(["a", "b"]), memo(["b", "a"]), asked) == (["A", "B"], ["B", "A"], ["a", "b"])


def test_a_memo_forgets_before_it_grows_beyond_its_limit():
    memo = Memo(str.upper, limit=3)
    memo(["a", "b"])
    memo(["c", "d"])
    assert set(memo.known) == {"c", "d"}


def test_a_single_word_is_remembered_too():
    asked = []
    memo = Memo(lambda word: asked.append(word) or word.upper())
    assert (memo.of("a"), memo.of("a"), memo(["a"]), asked) == ("A", "A", ["A"], ["a"])
