"""A whole launchpad on one machine: chain, Redis, backend, traders. For `listener demo` and the tests.

Needs the repository (contracts, web) and the `demo` extra; the service itself imports nothing from here.
"""
