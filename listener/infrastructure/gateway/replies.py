"""Answers: JSON that is ready, and errors that say what is wrong without saying how we work."""

import math
from collections.abc import Mapping
from typing import Final

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.exceptions import NoPermissionError, ReadOnlyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from listener.application.errors import ListenerError, Retryable
from listener.domain.errors import DomainError
from listener.infrastructure.gateway.security import Refused

JSON: Final = "application/json"
RETRY_AFTER_S: Final = 1
"""What callers are told while Redis is away."""
CODES: Final = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "payload_too_large"}
IN_SCRIPT: Final = "ACL failure in script"
"""What Redis says where a user may run scripts, but no command that writes."""
_log = structlog.get_logger("listener.gateway")


class Problem(Exception):
    """A request that its sender must change."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def not_found(what: str) -> Problem:
    """There is no such thing."""
    return Problem(404, "not_found", f"no such {what}")


def invalid(message: str) -> Problem:
    """A parameter that cannot be."""
    return Problem(422, "invalid_parameter", message)


def check_read_only(error: ListenerError) -> None:
    """Where Redis lets us read only, say so.

    Args:
        error: of a change.

    Raises:
        Problem: it is that.
    """
    if isinstance(error.__cause__, NoPermissionError | ReadOnlyError) or IN_SCRIPT in str(error):
        said = "this gateway may only read: ask one whose GATEWAY_REDIS_URL may write"
        raise Problem(403, "read_only", said) from error


def json_reply(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that is encoded already."""
    return Response(body, status, headers, JSON)


def error_body(code: str, message: str) -> bytes:
    """`{"error": {"code": …, "message": …}}`."""
    return orjson.dumps({"error": {"code": code, "message": message}})


def error_reply(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error; nobody may keep it."""
    return json_reply(error_body(code, message), status, {"Cache-Control": "no-store", **(headers or {})})


def refusal(refused: Refused) -> Response:
    """The answer to a caller who is not let in."""
    headers = {}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refused.status == 429:
        headers["Retry-After"] = str(math.ceil(refused.retry_after_s))
    return error_reply(refused.status, refused.code, str(refused), headers)


def install(app: FastAPI) -> None:
    """Have every error answered in the same shape."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DomainError, _domain)
    app.add_exception_handler(ListenerError, _store)
    app.add_exception_handler(Exception, _defect)


def _problem(_request: Request, error: Exception) -> Response:
    status, code = (error.status, error.code) if isinstance(error, Problem) else (500, "internal")
    return error_reply(status, code, str(error))


def _validation(_request: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, RequestValidationError) else ()
    said = (f"{'.'.join(str(part) for part in problem['loc'][1:])}: {problem['msg']}" for problem in problems)
    return error_reply(422, "invalid_parameter", "; ".join(said))


def _http(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return error_reply(500, "internal", "internal error")
    return error_reply(error.status_code, CODES.get(error.status_code, "http"), error.detail, error.headers)


def _domain(_request: Request, error: Exception) -> Response:
    return error_reply(422, "invalid_parameter", str(error))


def _store(request: Request, error: Exception) -> Response:
    _log.warning("Error in a request", path=request.url.path, error=f"{type(error).__name__}: {error}")
    if isinstance(error, Retryable):
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        return error_reply(503, "unavailable", "data is not available just now, try again", headers)
    return error_reply(503, "unusable", "data cannot be read; the operator's log says why")


def _defect(request: Request, error: Exception) -> Response:
    _log.error("Error in a request, a defect", path=request.url.path, exc_info=error)
    return error_reply(500, "internal", "internal error")
