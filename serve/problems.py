"""Errors as RFC 9457 problems: each says what to do."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from s2vgan.errors import SourceError

MEDIA_TYPE = "application/problem+json"
_ADVICE = {  # of errors that the framework raises by itself
    404: "nothing at {path}; /docs lists what there is.",
    405: "{path} does not answer {method}; /docs lists what it answers.",
}


class Refusal(HTTPException):
    """A request that is not served.

    Args:
        status: of the answer, 400 to 599.
        detail: a sentence that says what to do.
        retry_after: seconds after which it may be tried again; None if that would not help.
    """

    def __init__(self, status: int, detail: str, retry_after: int | None = None) -> None:
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if retry_after is not None:
            headers["Retry-After"] = str(retry_after)
        super().__init__(status, detail, headers)


def problem(status: int, detail: str) -> dict[str, Any]:
    """The members of a problem: ``title``, ``status`` and ``detail``."""
    return {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def answer(error: HTTPException) -> JSONResponse:
    """The answer to a request that is refused."""
    content = problem(error.status_code, str(error.detail))
    return JSONResponse(content, error.status_code, error.headers, media_type=MEDIA_TYPE)


def described(status: int, example: str, retry: bool = False) -> dict[int | str, dict[str, Any]]:
    """A problem for the ``responses`` of a route in the OpenAPI file.

    Args:
        status: of the answer.
        example: of its detail.
        retry: whether it carries Retry-After.
    """
    response: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["title", "status", "detail"],
                    "properties": {
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string", "description": "What to do."},
                    },
                },
                "example": problem(status, example),
            }
        },
    }
    if retry:
        response["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}
        }
    return {status: response}


def handle(api: FastAPI) -> None:
    """Make every refusal of an application answer with a problem."""
    api.add_exception_handler(SourceError, _unreadable)
    api.add_exception_handler(HTTPException, _refused)
    api.add_exception_handler(RequestValidationError, _invalid)


async def _unreadable(_: Request, error: Exception) -> JSONResponse:
    return answer(Refusal(422, str(error)))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if not isinstance(error, Refusal) and error.status_code in _ADVICE:
        advice = _ADVICE[error.status_code]
        error.detail = advice.format(path=request.url.path, method=request.method)
    return answer(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return answer(Refusal(422, f"{where}: {first['msg']}."))
