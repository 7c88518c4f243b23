import torch

from mtl_core.balancing.epoch_means import EpochMeans

ALL = torch.arange(2)


def add(means, losses, epoch, present=ALL):
    means.add(torch.tensor(losses, dtype=torch.float64), present, epoch)


def test_means_of_finished_epochs():
    means = EpochMeans(2)
    add(means, [1.0, 4.0], 0)
    add(means, [3.0, 8.0], 0)
    assert means.finished(ALL, 0).isnan().all()
    assert means.finished(ALL, 1)[0].tolist() == [2.0, 6.0]
    add(means, [1.0, 3.0], 1)
    last, older, first = means.finished(ALL, 2)
    assert (last.tolist(), older.tolist(), first.tolist()) == ([1, 3], [2, 6], [2, 6])


def test_epochs_without_labels_do_not_count():
    means = EpochMeans(2)
    add(means, [2.0, 6.0], 0)
    add(means, [1.0], 1, ALL[:1])
    add(means, [0.5], 2, ALL[:1])
    add(means, [0.25, 3.0], 3)
    last, older, first = means.finished(ALL, 4)
    assert last.tolist() == [0.25, 3.0]
    assert older.tolist() == [0.5, 6.0]
    assert first.tolist() == [2.0, 6.0]


def test_looking_changes_nothing_and_the_start_can_be_late():
    means = EpochMeans(2, first=1)
    add(means, [2.0, 6.0], 0)
    assert means.finished(ALL, 1).isnan().all()
    add(means, [1.0, 1.0], 1)
    assert torch.equal(means.finished(ALL, 2)[2], means.finished(ALL, 5)[2])
    assert means.finished(ALL, 1).isnan().all()
    add(means, [9.0, 9.0], 5)
    assert means.finished(ALL, 6)[2].tolist() == [1.0, 1.0]


def test_round_trip():
    means, other = EpochMeans(2), EpochMeans(2)
    add(means, [2.0, 6.0], 0)
    add(means, [1.0], 1, ALL[:1])
    other.load(means.state())
    add(other, [5.0, 5.0], 2)
    assert means.finished(ALL, 2)[0].tolist() == [1.0, 6.0]
    assert other.finished(ALL, 2)[0].tolist() == [1.0, 6.0]
