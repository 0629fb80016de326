"""Signatures, in Python and in JavaScript: both say the same of every request, by Standard Webhooks 1.0."""

import json
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.webhooks import TOLERANCE_S, InvalidWebhook, sign, verify

ROOT: Final = Path(__file__).resolve().parents[2]
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER: Final = "whsec_" + b64encode(b"another secret of ours").decode()
NOW: Final = 1_614_265_330
BODY: Final = '{"test": 2432232314}'
ID: Final = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SIGNATURE: Final = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
"""The example that implementations of the specification test themselves with."""


class Case(NamedTuple):
    """A request, and what is to be said of it: its id, or why not."""

    secrets: list[str]
    headers: dict[str, str]
    body: str
    said: str
    now_s: float = NOW
    tolerance_s: float = TOLERANCE_S


def headers(**changes: str) -> dict[str, str]:
    """Those of the example, some changed; an empty one is left out."""
    usual = {"webhook-id": ID, "webhook-timestamp": str(NOW), "webhook-signature": SIGNATURE}
    usual |= {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in usual.items() if value}


UNKNOWN: Final = "no signature is of a secret that we know"
FAR: Final = "webhook-timestamp is too far from now"
OURS: Final = sign([OTHER, SECRET], "31337-5-8-11", NOW, "ünï".encode())
CASES: Final = {
    "the example": Case([SECRET], headers(), BODY, ID),
    "names in any case": Case([SECRET], {k.title(): v for k, v in headers().items()}, BODY, ID),
    "one of several secrets": Case([OTHER, SECRET], headers(), BODY, ID),
    "one of several signatures": Case(
        [SECRET], headers(webhook_signature=f"v1a,abc v1,AAAA {SIGNATURE} v2,x"), BODY, ID
    ),
    "ours, of both": Case([SECRET], OURS, "ünï", "31337-5-8-11"),
    "ours, of the other": Case([OTHER], OURS, "ünï", "31337-5-8-11"),
    "another secret": Case([OTHER], headers(), BODY, UNKNOWN),
    "another body": Case([SECRET], headers(), BODY + " ", UNKNOWN),
    "another id": Case([SECRET], headers(webhook_id="msg_other"), BODY, UNKNOWN),
    "another time": Case([SECRET], headers(webhook_timestamp=str(NOW + 1)), BODY, UNKNOWN),
    "another version": Case([SECRET], headers(webhook_signature=f"v2,{SIGNATURE[3:]}"), BODY, UNKNOWN),
    "no version": Case([SECRET], headers(webhook_signature=SIGNATURE[3:]), BODY, UNKNOWN),
    "part of a signature": Case([SECRET], headers(webhook_signature=SIGNATURE[:-5]), BODY, UNKNOWN),
    "not base64": Case([SECRET], headers(webhook_signature="v1,ü€"), BODY, UNKNOWN),
    "beyond the most signatures": Case(
        [SECRET], headers(webhook_signature="v1,AAAA " * 16 + SIGNATURE), BODY, UNKNOWN
    ),
    "no id": Case([SECRET], headers(webhook_id=""), BODY, "no header webhook-id"),
    "no timestamp": Case([SECRET], headers(webhook_timestamp=""), BODY, "no header webhook-timestamp"),
    "no signature": Case([SECRET], headers(webhook_signature=""), BODY, "no header webhook-signature"),
    "a time in words": Case(
        [SECRET], headers(webhook_timestamp="now"), BODY, "webhook-timestamp is not Unix seconds"
    ),
    "just fresh enough": Case([SECRET], headers(), BODY, ID, NOW + TOLERANCE_S),
    "just not from the future": Case([SECRET], headers(), BODY, ID, NOW - TOLERANCE_S),
    "old": Case([SECRET], headers(), BODY, FAR, NOW + TOLERANCE_S + 1),
    "from the future": Case([SECRET], headers(), BODY, FAR, NOW - TOLERANCE_S - 1),
    "old, by less tolerance": Case([SECRET], headers(), BODY, FAR, NOW + 11, 10),
}


def said(case: Case) -> str:
    """What Python says."""
    try:
        return verify(case.secrets, case.headers, case.body, tolerance_s=case.tolerance_s, now_s=case.now_s)
    except InvalidWebhook as error:
        return str(error)


@pytest.mark.parametrize("name", CASES)
def test_python_says(name: str) -> None:
    """Its id, or why a request is not to be trusted."""
    assert said(CASES[name]) == CASES[name].said


PROGRAM: Final = """
import { InvalidWebhook, verifyWebhook } from '@0xpads/chart-client/webhooks'
let text = ''
for await (const piece of process.stdin) text += piece
const said = JSON.parse(text).map((asked, at) => {
  const { secrets, headers, body, now_s: nowS, tolerance_s: toleranceS } = asked
  try {
    const shown = at % 2 ? new Headers(headers) : headers
    return verifyWebhook(secrets, shown, at % 3 ? body : Buffer.from(body), { nowS, toleranceS })
  } catch (error) {
    return error instanceof InvalidWebhook ? error.message : `${error.name}`
  }
})
console.log(JSON.stringify(said))
"""


def test_javascript_says_the_same(tmp_path: Path) -> None:
    """Of the same requests, by the package's own export; a secret that is none is its user's error."""
    node = shutil.which("node")
    assert node
    modules = tmp_path / "node_modules" / "@0xpads"
    modules.mkdir(parents=True)
    (modules / "chart-client").symlink_to(ROOT / "web" / "client")
    (tmp_path / "check.mjs").write_text(PROGRAM)
    cases = [case for name, case in CASES.items() if name != "not base64"]
    wrong = [Case([secret], headers(), BODY, "TypeError") for secret in ("", "x", "whsec_?", "whsec_YQ")]
    wrong.append(Case([], headers(), BODY, "TypeError"))
    done = subprocess.run(
        [node, "check.mjs"],
        input=json.dumps([case._asdict() for case in (*cases, *wrong)]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [case.said for case in (*cases, *wrong)]
    for case in wrong:
        with pytest.raises(ValueError, match="secret"):
            said(case)


@given(st.binary(max_size=200), st.text("abc-0123456789", min_size=1, max_size=30), st.binary(min_size=1))
def test_what_is_signed_is_verified(body: bytes, message_id: str, key: bytes) -> None:
    """Any body and key; and no byte of the body may change."""
    secret = "whsec_" + b64encode(key).decode()
    signed = sign([secret], message_id, NOW, body)
    assert verify(secret, signed, body, now_s=NOW) == message_id
    with pytest.raises(InvalidWebhook):
        verify(secret, signed, body + b"x", now_s=NOW)
