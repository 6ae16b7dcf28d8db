"""Requests that nobody would think of: what answers is what the OpenAPI file says."""

from collections import Counter
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from schemathesis.generation.case import Case
from schemathesis.hooks import HookContext

from serve.access import Access
from serve.api import build
from serve.limits import Limits
from serve.voices import Voice
from tests.serve.sounds import service_of, sound

EXAMPLES = 25  # drawn for each operation, beside the edges of every parameter
TOKEN = "a token of the house"


def config(**more: Any) -> SchemathesisConfig:
    """The same requests in every run."""
    return SchemathesisConfig.from_dict(
        {
            "seed": 7,
            "generation": {
                "max-examples": EXAMPLES,
                "deterministic": True,
                "database": "none",
            },
            "operations": [
                {
                    # That a file is a sound is beyond what a schema can say.
                    "include-name": "POST /v1/speak",
                    "checks": {"positive_data_acceptance": {"enabled": False}},
                }
            ],
            **more,
        }
    )


@pytest.mark.parametrize("token", [None, TOKEN], ids=["open", "with a token"])
def test_every_answer_is_in_the_openapi_file(token: str | None, voice: Voice) -> None:
    service = service_of(voice, Limits(body=200_000, seconds=5), access=Access(token))
    more = {"headers": {"Authorization": f"Bearer {token}"}} if token else {}
    schema = schemathesis.openapi.from_asgi("/openapi.json", build(service), config=config(**more))
    speech, seen = sound(0.2), Counter[str]()

    @schema.hook
    def map_case(_: HookContext, case: Case) -> Case:
        """Make three of four requests to speak that fit the schema such that they can be served."""
        fits = case.meta is not None and case.meta.generation.mode.is_positive
        if case.operation.path == "/v1/speak" and fits:
            seen["speak"] += 1
            if seen["speak"] % 4:
                case.body = speech
                case.query.pop("model", None)
                if "size" in case.query:
                    case.query["size"] = 32 * (1 + seen["speak"] % 5)
        return case

    answers: Counter[tuple[str, int]] = Counter()
    problems: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            told = event.recorder
            for exchange in told.interactions.values():
                assert exchange.response is not None, told.label
                answers[told.label, exchange.response.status_code] += 1
            problems += [
                f"{told.label}: {check.name}: {check.failure_info}"
                for checks in told.checks.values()
                for check in checks
                if check.status is not Status.SUCCESS
            ]
        elif isinstance(event, events.NonFatalError | events.FatalError):
            problems.append(str(event))
    assert not problems, "\n\n".join(problems)
    assert not [status for _, status in answers if status >= 500]
    routes = schema.raw_schema["paths"].items()
    assert {f"{method.upper()} {path}" for path, methods in routes for method in methods} == {
        label for label, _ in answers
    }
    for status in (200, 404, 405, 422):
        assert answers["GET /v1/model", status] and answers["POST /v1/speak", status], answers
    assert bool(answers["GET /v1/model", 401]) == (token is not None)
    assert service.gate.inside == 0 and not service.batcher._sessions
