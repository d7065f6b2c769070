"""Which channels a message tries, in which order, and why each candidate is in or out."""

from switchboard.channel.manifest import AccountOwner, Connection, CredentialSpec, Manifest
from switchboard.identity import ChannelIdentity, ChannelName
from switchboard.ids import AccountKey
from switchboard.reason import ReasonCode
from switchboard.rules.route import Candidate, StepWish, Success, Verdict, plan_route
from switchboard.status import Status

SMS, TELEGRAM, RCS = ChannelName("SMS"), ChannelName("TELEGRAM"), ChannelName("RCS")
PHONE = ChannelIdentity(SMS, "46701230001")
CHAT = ChannelIdentity(TELEGRAM, "777000")
ACCOUNTS: dict[ChannelName, AccountKey | None] = {SMS: AccountKey("sms:main"), TELEGRAM: AccountKey("app:01K:TELEGRAM")}


#: Identities, order, accounts, and the code expected.
Case = tuple[list[ChannelIdentity], list[ChannelName], dict[ChannelName, AccountKey | None], ReasonCode]


def manifest(channel: ChannelName, *receipts: Status) -> Manifest:
    return Manifest(
        channel=channel,
        title=channel,
        owner=AccountOwner.APP,
        connection=Connection.REQUEST,
        credentials=CredentialSpec("token", ()),
        normal_identity=str,
        receipts=frozenset(receipts),
        content={},
    )


MANIFESTS = {SMS: manifest(SMS, Status.DELIVERED), TELEGRAM: manifest(TELEGRAM)}


def test_identities_are_tried_in_the_order_given():
    route = plan_route([CHAT, PHONE], [], ACCOUNTS, MANIFESTS)

    assert [step.channel for step in route.steps] == [TELEGRAM, SMS]
    assert [candidate.verdict for candidate in route.candidates] == [Verdict.KEPT, Verdict.KEPT]


def test_the_priority_order_wins_and_names_what_it_leaves_out():
    route = plan_route([CHAT, PHONE], [SMS], ACCOUNTS, MANIFESTS)

    assert [step.identity for step in route.steps] == [PHONE]
    assert route.candidates == (Candidate(SMS, Verdict.KEPT), Candidate(TELEGRAM, Verdict.NOT_ASKED_FOR))


def test_a_channel_without_an_identity_is_skipped():
    route = plan_route([PHONE], [TELEGRAM, SMS], ACCOUNTS, MANIFESTS)

    assert [step.channel for step in route.steps] == [SMS]
    assert route.candidates[0] == Candidate(TELEGRAM, Verdict.NO_IDENTITY)


def test_an_empty_route_says_why():
    cases: tuple[
        tuple[list[ChannelIdentity], list[ChannelName], dict[ChannelName, AccountKey | None], ReasonCode], ...
    ] = (
        ([PHONE], [TELEGRAM], ACCOUNTS, ReasonCode.NO_CHANNEL_IDENTITY_FOR_CONTACT),
        ([PHONE], [], {}, ReasonCode.CHANNEL_CONFIGURATION_MISSING),
        ([ChannelIdentity(RCS, "46701230001")], [], ACCOUNTS, ReasonCode.CHANNEL_CONFIGURATION_MISSING),
        ([PHONE], [], {SMS: None}, ReasonCode.CHANNEL_BAD_CONFIGURATION),
        ([], [], ACCOUNTS, ReasonCode.NO_CHANNEL_IDENTITY_FOR_CONTACT),
    )
    for identities, order, accounts, expected in cases:
        route = plan_route(identities, order, accounts, MANIFESTS)

        assert route.steps == ()
        assert route.empty_because is not None
        assert route.empty_because.code is expected


def test_a_channel_the_app_does_not_have_ends_the_message_before_any_attempt():
    route = plan_route([PHONE, ChannelIdentity(RCS, "46701230001")], [], ACCOUNTS, MANIFESTS)

    assert route.steps == ()
    assert route.empty_because is not None
    assert route.empty_because.code is ReasonCode.CHANNEL_CONFIGURATION_MISSING
    assert route.candidates == (
        Candidate(SMS, Verdict.OTHER_NOT_CONFIGURED), Candidate(RCS, Verdict.NOT_INSTALLED),
    )  # fmt: skip


def test_so_does_one_that_would_never_be_tried():
    route = plan_route([PHONE, ChannelIdentity(RCS, "46701230001")], [SMS], ACCOUNTS, MANIFESTS)

    assert route.steps == ()
    assert route.candidates[1] == Candidate(RCS, Verdict.NOT_INSTALLED)


def test_what_is_passed_over_is_told_and_changes_nothing():
    without = plan_route([PHONE], [], ACCOUNTS, MANIFESTS)

    route = plan_route([PHONE], [], ACCOUNTS, MANIFESTS, passed_over=[RCS, TELEGRAM])

    assert (route.steps, route.empty_because) == (without.steps, None)
    assert route.candidates == (
        Candidate(SMS, Verdict.KEPT), Candidate(RCS, Verdict.NOT_INSTALLED), Candidate(TELEGRAM, Verdict.NO_IDENTITY),
    )  # fmt: skip


def test_only_a_step_that_reports_delivery_and_has_a_follower_waits_for_it():
    waits = [step.wait_seconds for step in plan_route([PHONE, CHAT], [], ACCOUNTS, MANIFESTS, 60).steps]
    assert waits == [60, None]

    waits = [step.wait_seconds for step in plan_route([CHAT, PHONE], [], ACCOUNTS, MANIFESTS, 60).steps]
    assert waits == [None, None]


def test_a_request_may_ask_each_channel_for_a_success_of_its_own():
    manifests = {SMS: manifest(SMS, Status.DELIVERED), RCS: manifest(RCS, Status.DELIVERED, Status.READ)}
    accounts: dict[ChannelName, AccountKey | None] = {SMS: AccountKey("sms:main"), RCS: AccountKey("rcs:main")}
    both = [ChannelIdentity(RCS, "46701230001"), PHONE]
    cases = (
        (StepWish(RCS, Success.READ, 30), (30, False)),
        (StepWish(RCS, Success.READ, 30, switch_after_delivered=True), (30, True)),
        (StepWish(RCS, Success.READ), (60, False)),
        (StepWish(RCS, Success.SUBMITTED, 30), (None, False)),
    )
    for wish, expected in cases:
        first, last = plan_route(both, [], accounts, manifests, 60, [wish]).steps

        assert (first.wait_seconds, first.until_read) == expected
        assert last.wait_seconds is None


def test_a_success_the_channel_never_reports_is_not_waited_for():
    first, _ = plan_route([PHONE, CHAT], [], ACCOUNTS, MANIFESTS, 60, [StepWish(SMS, Success.READ, 30)]).steps

    assert first.wait_seconds is None
