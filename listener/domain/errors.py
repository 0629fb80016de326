"""Errors of the domain.

```
DomainError
├── InvalidValue      a value type refused its arguments
├── InvalidInterval   an interval name that this service does not know
└── MinutesMissing    a rolling day was not given the minutes that roll off
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
