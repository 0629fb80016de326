"""What webhook routes take and answer, for `/openapi.json`; requests are checked by these."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from listener.application.webhook_rules import NOTE_CHARACTERS_MAX, URL_CHARACTERS_MAX
from listener.application.webhooks import EVENTS, OVERLAP_MS, OVERLAP_MS_MAX
from listener.infrastructure.gateway.schemas import Answer, Count, Millis

Event = Annotated[str, Field(json_schema_extra={"enum": list(EVENTS)})]
Row = Annotated[str, Field(pattern=r"^[0-9]{1,19}-[0-9]{1,19}$", examples=["1767225600123-8"])]


class NewWebhook(BaseModel):
    """An endpoint to be created."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=URL_CHARACTERS_MAX, examples=["https://example.org/hooks"])
    events: list[Event] = Field([], max_length=len(EVENTS), description="none: all")
    note: str = Field("", max_length=NOTE_CHARACTERS_MAX)


class Rotation(BaseModel):
    """A change of the secret."""

    model_config = ConfigDict(extra="forbid")

    overlapMs: int = Field(  # noqa: N815 - a name of the public contract, as those below
        OVERLAP_MS, ge=0, le=OVERLAP_MS_MAX, description="how long the secret of before signs as well"
    )


class Redelivery(BaseModel):
    """What is to be sent once more: one message of the log, or a range of rows, both ends included."""

    model_config = ConfigDict(extra="forbid")

    message: str | None = Field(None, max_length=120)
    first: Row | None = None
    last: Row | None = None


class Failing(Answer):
    """How an endpoint fails."""

    since: Millis
    attempts: Count
    nextAttemptAt: Millis  # noqa: N815
    error: str


class Range(Answer):
    """Rows that are left to send once more."""

    first: str
    last: str
    message: str | None = None


class SecretLife(Answer):
    """A secret that signs."""

    until: Millis | None = Field(description="null: it stays")


class Webhook(Answer):
    """An endpoint. Its secrets are shown once, when they are made."""

    id: str
    url: str
    events: list[str] = Field(description="empty: all")
    note: str
    createdAt: Millis  # noqa: N815
    status: Literal["enabled", "disabled", "given_up"]
    statusSince: Millis  # noqa: N815
    reason: str = Field(description="why it was given up; empty: it was not")
    failing: Failing | None
    redelivering: Range | None
    secrets: list[SecretLife]


class WebhookWithSecret(Webhook):
    """An endpoint with the secret that was just made."""

    secret: str = Field(description="shown this once: whsec_ and base64")


class WebhookList(Answer):
    """All endpoints, the oldest first."""

    items: list[Webhook]


class Attempt(Answer):
    """One request."""

    t: Millis
    message: str = Field(description="the header webhook-id")
    event: str
    epoch: Count
    first: Count
    seq: Count
    attempt: Count
    status: Count = Field(description="HTTP status; 0: there was no answer")
    error: str = Field(description="empty: it was taken")
    ms: Count
    redelivered: bool


class AttemptList(Answer):
    """The newest requests, newest first."""

    items: list[Attempt]
