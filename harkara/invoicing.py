"""What a message may say of the invoice that it is about: `{{ invoice.number }}`, its amount and its due date."""

from __future__ import annotations

from datetime import datetime

import msgspec

from harkara.policy.quiet_hours import zone_of

#: The codes of ISO 4217, list one as of 2025 (https://www.six-group.com/en/products-services/financial-information/
#: data-standards.html), without metals, units of account and codes for tests; with those withdrawn in 2025 and 2026.
CURRENCIES = frozenset(
    """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF
    CHE CHF CHW CLF CLP CNY COP COU CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF
    GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD
    LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP
    PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP
    TRY TTD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
    """.split()  # noqa: SIM905 - a table to be read
)

#: Digits after the decimal point of currencies that have not two of them (ISO 4217).
_DIGITS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND"), 0),
    **dict.fromkeys(("VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


class Owed(msgspec.Struct, frozen=True, gc=False):
    """What is owed, and by when. `amount` is in minor units of the currency."""

    number: str
    amount: int
    currency: str
    due_at: datetime

    def variables(self, timezone: str | None) -> dict[str, str]:
        """The values of `invoice` in a text. The due date is that of the tenant's clock: it is the tenant's paper."""
        return {
            "number": self.number,
            "amount": shown(self.amount, self.currency),
            "due_date": self._due_date(timezone),
        }

    def _due_date(self, timezone: str | None) -> str:
        try:
            return self.due_at.astimezone(zone_of(None, "", timezone)).date().isoformat()
        except OverflowError:  # the last hours of the calendar
            return self.due_at.date().isoformat()


def shown(amount: int, currency: str) -> str:
    """An amount of minor units as people read it: 123450 of INR is `INR 1,234.50`."""
    digits = _DIGITS.get(currency, 2)
    whole, rest = divmod(amount, 10**digits)
    return f"{currency} {whole:,}" + (f".{rest:0{digits}}" if digits else "")
