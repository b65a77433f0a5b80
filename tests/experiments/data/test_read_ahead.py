"""Reading ahead: the order of the items, how far it reads, errors, and the end of its threads."""

import itertools
import threading

import pytest

from experiments.data.read_ahead import ReadAhead


def test_it_keeps_the_order_though_later_items_are_ready_first():
    first_may_end = threading.Event()

    def load(n):
        if n == 0:
            assert first_may_end.wait(10)
        else:
            first_may_end.set()
        return n

    with ReadAhead(load, iter(range(5)), ahead=3, threads=2) as loaded:
        assert list(loaded) == [0, 1, 2, 3, 4]


def test_it_loads_the_next_items_while_one_is_in_use_and_no_more_of_an_endless_iterator():
    taken, loaded = [], threading.Semaphore(0)

    def items():
        for n in itertools.count():
            taken.append(n)
            yield n

    def load(n):
        loaded.release()
        return n

    with ReadAhead(load, items(), ahead=3, threads=2) as feed:
        assert next(feed) == 0
        for _ in range(4):
            assert loaded.acquire(timeout=10)
        assert next(feed) == 1
    assert taken == [0, 1, 2, 3, 4]


def test_an_error_comes_where_its_item_would_have_come_and_threads_end():
    def load(n):
        if n == 2:
            raise OSError("the disk is gone")
        return n

    with ReadAhead(load, iter(range(9)), ahead=4, threads=2) as feed:
        assert [next(feed), next(feed)] == [0, 1]
        with pytest.raises(OSError, match="the disk is gone"):
            next(feed)
    assert not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]
