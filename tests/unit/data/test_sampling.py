"""Which images make up the batches of an epoch: none lost, none twice, on any number of processes."""

import pytest

from histo_lightning.data.batches import Batches
from histo_lightning.data.breakhis.records import record_of


def test_case_balanced_sampling_draws_classes_and_cases_equally() -> None:
    names = [f"SOB_B_A-14-1-40-{i:03d}.png" for i in range(60)] + [
        f"SOB_B_A-14-2-40-{i:03d}.png" for i in range(6)
    ]
    names += [f"SOB_M_DC-14-{c}-40-{i:03d}.png" for c in range(3, 7) for i in range(8)]
    records = [record_of(name) for name in names]
    labels = [int(r.class_name == "malignant") for r in records]
    order = Batches(records, labels, "case_balanced", 1, len(records), training=True)
    drawn = []
    for epoch in range(100):
        order.set_epoch(epoch)
        drawn += [records[i].case for i in order.indices()]
    share = {case: drawn.count(case) / len(drawn) for case in set(drawn)}
    assert share["14-1"] == pytest.approx(0.25, abs=0.02)
    assert share["14-2"] == pytest.approx(0.25, abs=0.02)
    assert all(share[f"14-{c}"] == pytest.approx(0.125, abs=0.02) for c in range(3, 7))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_batches_without_loss_or_duplicates(processes: int) -> None:
    records = [record_of(f"SOB_B_A-14-1-40-{i:03d}.png") for i in range(23)]
    labels = [0] * 23
    whole = list(Batches(records, labels, "shuffle", 0, 6, training=True))
    shares = [
        list(Batches(records, labels, "shuffle", 0, 6, training=True, rank=r, processes=processes))
        for r in range(processes)
    ]
    for i, batch in enumerate(whole):
        assert sorted(batch) == sorted(index for share in shares for index in share[i])
        assert len(batch) == 6


@pytest.mark.parametrize("count", [1, 3, 10, 31, 32, 33, 300, 301])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_batches_cover_everything_on_any_number_of_processes(count: int, processes: int) -> None:
    part = [None] * count, [0] * count, "sequential", 0, 32 // processes * processes
    shares = [
        list(Batches(*part, training=False, rank=rank, processes=processes)) for rank in range(processes)
    ]
    assert len({len(batch) for share in shares for batch in share}) == 1
    assert {len(share) for share in shares} == {len(Batches(*part, training=False))}
    seen = [index for share in shares for batch in share for index in batch]
    assert set(seen) == set(range(count))
    assert len(seen) - count < max(
        len(shares[0]) * processes, processes + 1
    )  # hardly an image more than one a batch
    assert max(len(batch) for batch in shares[0]) * processes <= max(32, processes)


def test_overfitting_repeats_the_first_epoch() -> None:
    order = Batches([None] * 20, [0] * 20, "shuffle", 3, 4, training=True, repeats=True)
    first = order.indices().tolist()
    order.set_epoch(5)
    assert order.indices().tolist() == first
    other = Batches([None] * 20, [0] * 20, "shuffle", 3, 4, training=True)
    other.set_epoch(5)
    assert sorted(other.indices().tolist()) == sorted(first) != other.indices().tolist()
