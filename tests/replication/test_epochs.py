"""Where two logs part: by epochs, exactly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frieda.replication.epochs import Agreement, agreement, epoch_ends
from frieda.replication.messages import LATEST_EPOCH, MAX_EPOCHS, Answer, EpochEnd
from frieda.storage.leader_epochs import LeaderEpochs


class EpochLog:
    """A log of which only the epochs of its records are kept."""

    def __init__(self, *epochs: int, start: int = 0) -> None:
        self.records = list(epochs)
        self.log_start_offset = start

    @property
    def log_end_offset(self) -> int:
        return self.log_start_offset + len(self.records)

    safe_offset = log_end_offset
    high_watermark = 0

    @property
    def epochs(self) -> LeaderEpochs:
        known = LeaderEpochs()
        for offset, epoch in enumerate(self.records, self.log_start_offset):
            known.note(epoch, offset)
        return known

    def append_replicated(self, batches: object, leader_epoch: int) -> int:
        raise AssertionError("nothing is appended here")


def answer_of(log: EpochLog, up_to_epoch: int = LATEST_EPOCH) -> Answer:
    ends, more = epoch_ends(log, up_to_epoch)
    return Answer(9, 1, "f", ends, more, log.log_start_offset, log.log_end_offset)


def agree(leader: EpochLog, follower: EpochLog) -> Agreement:
    """What a leader finds, asking again while it has to."""
    up_to_epoch = LATEST_EPOCH
    while True:
        found = agreement(leader, answer_of(follower, up_to_epoch))
        if found.older_than < 0:
            return found
        up_to_epoch = found.older_than - 1


def test_logs_that_are_the_same_agree_to_the_end() -> None:
    assert agree(EpochLog(1, 1, 2), EpochLog(1, 1, 2)) == Agreement(3)


def test_a_follower_that_is_behind_cuts_nothing() -> None:
    assert agree(EpochLog(1, 1, 2, 2), EpochLog(1, 1)) == Agreement(2)


def test_a_tail_that_was_never_taken_over_is_cut() -> None:
    assert agree(EpochLog(1, 1, 3), EpochLog(1, 1, 1, 1)) == Agreement(2)


def test_two_tails_of_different_epochs_are_cut_where_they_part() -> None:
    """The case of KIP-279: the follower has an epoch that the leader has not."""
    assert agree(EpochLog(1, 1, 3, 3), EpochLog(1, 1, 1, 2, 2)) == Agreement(2)


def test_a_new_replica_gets_everything() -> None:
    assert agree(EpochLog(1, 1), EpochLog()) == Agreement(0)


def test_a_follower_below_the_start_of_the_leaders_log_begins_anew() -> None:
    assert agree(EpochLog(4, 4, start=50), EpochLog(1, 1)) == Agreement(50, reset=True)


def test_an_empty_follower_elsewhere_begins_anew() -> None:
    assert agree(EpochLog(4, 4, start=50), EpochLog(start=51)) == Agreement(50, reset=True)


def test_logs_without_a_common_epoch_share_nothing() -> None:
    assert agree(EpochLog(5, 5), EpochLog(1, 2, 3)) == Agreement(0, reset=True)


def test_an_agreement_below_what_the_leader_still_has_means_to_begin_anew() -> None:
    assert agree(EpochLog(1, 4, 4, start=9), EpochLog(*[1] * 9, 3, 3)) == Agreement(9)
    assert agree(EpochLog(2, 4, start=9), EpochLog(*[2] * 5, 3, 3, 3, 3, 3)) == Agreement(
        9, reset=True
    )


def test_a_follower_with_very_many_epochs_is_asked_for_older_ones() -> None:
    follower = EpochLog(*range(0, 5 * MAX_EPOCHS, 2))
    leader = EpochLog(0, *range(1, 5 * MAX_EPOCHS, 2))
    first = agreement(leader, answer_of(follower))
    assert first.older_than == follower.records[-MAX_EPOCHS]
    assert agree(leader, follower) == Agreement(1)


def test_an_answer_names_no_more_epochs_than_its_bound() -> None:
    ends, more = epoch_ends(EpochLog(*range(MAX_EPOCHS + 5)), LATEST_EPOCH)
    assert (len(ends), more, ends[-1]) == (
        MAX_EPOCHS,
        True,
        EpochEnd(MAX_EPOCHS + 4, MAX_EPOCHS + 5),
    )


def common_length(one: list[int], other: list[int]) -> int:
    """A record is known by its epoch and offset, since an epoch has one leader."""
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)),
        max_size=25,
    )
)
def test_the_agreement_is_the_longest_common_beginning(
    steps: list[tuple[int, int, int, int]],
) -> None:
    """Whatever elections, appends and replications three logs have gone through."""
    logs = [EpochLog(), EpochLog(), EpochLog()]
    for epoch, (leader, appended, follower, copied) in enumerate(steps, 1):
        leading = logs[leader].records
        leading += [epoch] * appended
        if follower != leader:
            following = logs[follower].records
            del following[common_length(leading, following) :]
            following += leading[len(following) : len(following) + copied]
    for leader_log in logs:
        for follower_log in logs:
            found = agree(leader_log, follower_log)
            expected = common_length(leader_log.records, follower_log.records)
            assert found.offset == expected
            assert not found.reset or expected == 0
