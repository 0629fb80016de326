"""Errors of the domain.

```
DomainError
├── InvalidValue      a value type refused its arguments
├── InvalidInterval   an interval name that this service does not know
├── MinutesMissing    a rolling day was not given the minutes that roll off
├── InvalidRule       an alert rule that can never come true, or is malformed
├── TooManyRules      there are as many alert rules as there may be
└── UnknownMarket     an alert rule for a market that does not exist
```
"""


class DomainError(ValueError):
    """A rule of the domain was broken."""


class InvalidValue(DomainError):
    """A value type refused its arguments."""


class InvalidInterval(DomainError):
    """An interval name that is neither whole minutes dividing a day nor `1w`."""


class MinutesMissing(DomainError):
    """A rolling day was not given the minutes that roll off, or others than were put into it."""


class InvalidRule(DomainError):
    """An alert rule is malformed, or can never come true; the message names the field."""


class TooManyRules(DomainError):
    """There are as many alert rules as there may be."""


class UnknownMarket(DomainError):
    """An alert rule for a market that does not exist."""
