"""Who gets whose keys and values, worked by hand; the exchange itself is tested between processes, tests/training/test_shared_batches.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from revela.method.exchange import Exchange, Group


class Told(Group):
    """A process of a group that is told what all of them would say."""

    def __init__(self, place, count, table):
        super().__init__(None, place, count)
        self.table = table

    def gather(self, rows):
        own = len(self.table) // self.count
        assert torch.equal(rows, self.table[self.place * own :][:own])
        return self.table


def exchanges(count, attends, lengths):
    """The exchange as each process of a group makes it for the same batch."""
    attends, own = torch.tensor(attends, dtype=torch.bool), len(lengths) // count
    table = torch.cat([attends, torch.tensor(lengths)[:, None]], 1).int()
    parts = [slice(place * own, (place + 1) * own) for place in range(count)]
    return [Exchange(Told(place, count, table), attends[part], lengths[part]) for place, part in enumerate(parts)]


def test_few_pairs_by_hand():
    """Documents of 1 and 2 tokens on one process, of 3 and 4 on the other; 0 attends to 1, 1 to 2, 2 to 3, 3 to 2."""
    attends = [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    first, second = exchanges(2, attends, [1, 2, 3, 4])
    assert not first.all and not second.all  # 3 tokens go over, not 7
    assert first.lengths == [0, 2, 3, 0] and second.lengths == [0, 0, 3, 4]
    assert first.places.tolist() == [1, 2]  # document 1 to itself, nothing to the other
    assert (first.sent, first.received) == ([2, 0], [2, 3])
    assert second.places.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 6]
    assert (second.sent, second.received) == ([3, 7], [0, 7])


def test_all_pairs_by_hand():
    attends = (torch.ones(4, 4) - torch.eye(4)).tolist()
    for exchange in exchanges(2, attends, [1, 2, 3, 4]):
        assert exchange.all and exchange.lengths == [1, 2, 3, 4]
        assert exchange.places.tolist() == [0, 1, 2, 7, 8, 9, 10, 11, 12, 13]  # each process's padded to 7


def test_one_busy_process_is_what_counts():
    """All attend to document 0, which is as long as all that its process has: to send it to all is an all-gather."""
    attends = [[0, 1, 0, 0, 0, 0], *[[1, 0, 0, 0, 0, 0]] * 5]
    assert all(exchange.all for exchange in exchanges(3, attends, [9, 0, 1, 1, 1, 1]))
    assert not any(exchange.all for exchange in exchanges(3, attends, [4, 5, 1, 1, 1, 1]))


@given(st.data(), st.integers(2, 4), st.integers(1, 3))
def test_what_one_sends_another_receives(data, count, own):
    size = count * own
    row = st.lists(st.booleans(), min_size=size, max_size=size)
    attends = data.draw(st.lists(row, min_size=size, max_size=size))
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=size, max_size=size))
    made = exchanges(count, attends, lengths)
    totals = [sum(lengths[place * own :][:own]) for place in range(count)]
    assert len({exchange.all for exchange in made}) == 1
    for place, exchange in enumerate(made):
        wanted = [any(rows) for rows in zip(*attends[place * own :][:own])]
        if exchange.all:
            assert exchange.lengths == lengths and len(exchange.places) == sum(lengths)
            continue
        assert exchange.lengths == [length * want for length, want in zip(lengths, wanted)]
        assert sum(exchange.received) == sum(exchange.lengths) and sum(exchange.sent) == len(exchange.places)
        assert exchange.received == [other.sent[place] for other in made]
        busiest = max(sum(exchange.received) - exchange.received[place], sum(exchange.sent) - exchange.sent[place])
        assert busiest < (count - 1) * max(totals)


@pytest.mark.parametrize(("rows", "sizes"), [(8, [2, 2, 2, 2]), (1, [1, 0, 0, 0])])
def test_parts(rows, sizes):
    whole = torch.arange(rows * 3).view(rows, 3)
    parts = [Group(None, place, 4).part(whole) for place in range(4)]
    assert [len(part) for part in parts] == sizes and torch.equal(torch.cat(parts), whole)
