"""SMS as the host finds it."""

import os
import ssl
from collections.abc import Sequence

from switchboard.channel.contract import Account, BindLease, Fact, InboundPart, SessionHost
from switchboard.channel.errors import NotConfigured
from switchboard.channel.manifest import Manifest
from switchboard.ids import AccountKey
from switchboard_channels.sms.account import SmscAccount
from switchboard_channels.sms.concat import References
from switchboard_channels.sms.inbound import Deliveries, put_together
from switchboard_channels.sms.manifest import MANIFEST
from switchboard_channels.sms.session import SmppSession


class SmsAdapter:
    """Makes SMPP sessions. Sessions of one account share what they number and what they remember."""

    manifest: Manifest = MANIFEST

    def __init__(self) -> None:
        self._references = References(int.from_bytes(os.urandom(8), "big"))
        self._deliveries: dict[AccountKey, Deliveries] = {}

    def max_binds(self, account: Account) -> int:
        """How many sessions the account allows over all instances."""
        return _settings(account).max_binds

    def session(self, account: Account, host: SessionHost, lease: BindLease) -> SmppSession:
        """Make one session. Raises NotConfigured when settings are missing or the CA file cannot be read."""
        settings = _settings(account)
        return SmppSession(
            account,
            host,
            lease,
            references=self._references,
            deliveries=self._deliveries.setdefault(account.key, Deliveries()),
            tls=_tls(settings),
        )

    def put_together(self, parts: Sequence[InboundPart], account: Account) -> Fact:
        """What to publish of a long message whose last parts never came."""
        return put_together(parts, _settings(account))


def _settings(account: Account) -> SmscAccount:
    if not isinstance(account.settings, SmscAccount):
        raise NotConfigured("the account has no SMSC settings")
    return account.settings


def _tls(settings: SmscAccount) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    try:
        return ssl.create_default_context(cafile=settings.tls_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise NotConfigured("tls_ca_file cannot be read") from error


ADAPTER = SmsAdapter
