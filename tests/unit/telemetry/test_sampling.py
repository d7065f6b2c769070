"""Which messages are traced."""

from switchboard.ids import MessageId, mint
from switchboard.telemetry.sampling import is_sampled


def test_every_process_gives_the_same_answer_and_the_share_is_kept():
    ids = [MessageId(mint()) for _ in range(4_000)]

    share = sum(is_sampled(message_id, 0.25) for message_id in ids) / len(ids)

    assert 0.2 < share < 0.3
    assert [is_sampled(i, 0.25) for i in ids] == [is_sampled(i, 0.25) for i in ids]


def test_none_and_all():
    message_id = MessageId(mint())

    assert not is_sampled(message_id, 0)
    assert is_sampled(message_id, 1)
