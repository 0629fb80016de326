"""What `listener` exports: everything it names, imported only when somebody asks."""

import subprocess
import sys

import pytest

import listener


def test_importing_it_imports_nothing_else() -> None:
    """Commands such as `listener health` import the package, and must not wait for web3 and the like."""
    code = "import sys, listener; print([name for name in sys.modules if name.startswith('listener.')])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", listener.__all__)
def test_every_name_is_there(name: str) -> None:
    """What is listed can be imported, and is what it is called."""
    found = getattr(listener, name)
    assert name in {"__version__", getattr(found, "__name__", "")}


def test_other_names_are_not() -> None:
    """A name that is misspelt is an error where it is used."""
    with pytest.raises(AttributeError, match="TradeProcesed"):
        _ = listener.TradeProcesed
