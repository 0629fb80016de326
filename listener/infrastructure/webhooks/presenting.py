"""Endpoints and attempts as operators see them, over REST and on the command line. Secrets are left out."""

from listener.application.interfaces import RowId
from listener.application.webhooks import Attempt, Endpoint, EndpointState, Replay


def endpoint_item(endpoint: Endpoint, state: EndpointState) -> dict[str, object]:
    """One endpoint, JSON-ready."""
    failing = state.failing
    return {
        "id": endpoint.id,
        "url": endpoint.url,
        "events": list(endpoint.events),
        "note": endpoint.note,
        "createdAt": endpoint.created_at,
        "status": state.status.value,
        "statusSince": state.changed_at,
        "reason": state.reason,
        "failing": failing
        and {
            "since": failing.since,
            "attempts": failing.attempts,
            "nextAttemptAt": failing.next_at,
            "error": failing.error,
        },
        "redelivering": state.replay and replay_item(state.replay),
        "secrets": [{"until": secret.until} for secret in endpoint.secrets],
    }


def replay_item(replay: Replay) -> dict[str, object]:
    """Rows that are delivered once more, JSON-ready."""
    item: dict[str, object] = {"first": row_text(replay.first), "last": row_text(replay.last)}
    return {**item, "message": replay.message} if replay.message else item


def attempt_item(attempt: Attempt) -> dict[str, object]:
    """One line of the delivery log, JSON-ready."""
    return {
        "t": attempt.t,
        "message": attempt.id,
        "event": attempt.event,
        "epoch": attempt.epoch,
        "first": attempt.first,
        "seq": attempt.seq,
        "attempt": attempt.attempt,
        "status": attempt.status,
        "error": attempt.error,
        "ms": attempt.ms,
        "redelivered": attempt.replayed,
    }


def row_text(row: RowId) -> str:
    """A row's number as operators write it."""
    return "{}-{}".format(*row)
