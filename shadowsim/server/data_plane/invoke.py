"""Implements InvokeEndpoint, whole or streamed: turns requests into answers of SageMaker's runtime.

HTTP itself is in app.py. A request is checked, goes to a production variant by weight (or to the one that it targets),
and from there to an instance. The body of a 2XX answer passes unchanged; any other answer becomes a ModelError with
SageMaker's body. A copy is sent when the source's request is on its way (or was answered), and never delays the caller.
Requests are counted and captured after their answers have been written.

A simulated instance's answer leaves when the model's latency and the scenario's overhead have passed since the request
came: the server's own time is part of that overhead.

An answer is streamed if the caller asks for it. An error before the first byte is a ModelError as ever. One after it
ends the stream: by `ModelStreamError` in an event stream, with the code StreamBroken if the container's answer broke
off, and ModelInvocationTimeExceeded if it took too long. The time-out of an invocation holds for the first byte; the
whole stream has one of its own, which is 8 minutes. AWS says only that it is longer than 60 seconds.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from time import perf_counter, time
from uuid import uuid4

from shadowsim.aws.contract import sentence
from shadowsim.errors import ShadowsimError, ThrottlingError, ValidationError, shown
from shadowsim.frames import SERVER_LAG
from shadowsim.option_defaults import MAX_BODY_BYTES, STREAM_S
from shadowsim.server.data_plane.backends import (
    ANSWERED,
    CONTENT_TYPE,
    CUSTOM_ATTRIBUTES,
    INVOCATIONS,
    TIMED_OUT,
    TOO_LONG,
    Answer,
    Call,
    Unread,
)
from shadowsim.server.data_plane.captures import Invocation, InvocationCaptures
from shadowsim.server.data_plane.completions import CompletionRequest
from shadowsim.server.data_plane.counts import ServedRequest
from shadowsim.server.data_plane.experiment_frames import Logbook
from shadowsim.server.data_plane.live import LiveEndpoint, LiveEndpoints
from shadowsim.server.data_plane.mirror import RESPONSE
from shadowsim.server.data_plane.pools import VariantPool, pick_variant
from shadowsim.server.data_plane.real_time import until
from shadowsim.server.http.streamed_replies import MODEL_STREAM_ERROR, StreamedReply
from shadowsim.server.state.views import EndpointView

TIMEOUT_S = 60.0
ERROR_TYPE, REQUEST_ID = "x-amzn-ErrorType", "x-amzn-RequestId"
INVOKED = "x-Amzn-Invoked-Production-Variant"
STREAM_ACCEPT = "X-Amzn-SageMaker-Accept"  # in place of Accept where the answer is an event stream
INFERENCE_ID, SESSION_ID = "X-Amzn-SageMaker-Inference-Id", "X-Amzn-SageMaker-Session-Id"
TARGET_VARIANT = "X-Amzn-SageMaker-Target-Variant"
_PASSED_ON = (CONTENT_TYPE, "Accept", CUSTOM_ATTRIBUTES, SESSION_ID)
# By header: the member's name in AWS's sentences, and its greatest length.
_LIMITS = {
    CONTENT_TYPE: ("contentType", 1024),
    "Accept": ("accept", 1024),
    STREAM_ACCEPT: ("accept", 1024),
    CUSTOM_ATTRIBUTES: ("customAttributes", 1024),
    INFERENCE_ID: ("inferenceId", 64),
    SESSION_ID: ("sessionId", 256),
    TARGET_VARIANT: ("targetVariant", 63),
}
_UNSUPPORTED = {
    "X-Amzn-SageMaker-Target-Model": "multi-model endpoints",
    "X-Amzn-SageMaker-Target-Container-Hostname": "multi-container endpoints",
    "X-Amzn-SageMaker-Inference-Component": "inference components",
    "X-Amzn-SageMaker-Enable-Explanations": "explanations",
}
_MOST_QUOTED = 16_384  # bytes of the longest error body that a ModelError quotes
_TIMED_OUT = (
    "Your invocation timed out while waiting for a response from container primary. Review the latency metrics for "
    "each container in Amazon CloudWatch, resolve the issue, and try again."
)


class InvocationError(ShadowsimError, ValueError):
    """An invocation that the runtime refuses, with the runtime's error code, not the control plane's."""

    code = "ValidationError"
    http_status = 400


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP response to the caller."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the runtime.

    Attributes
    ----------
    max_body_bytes : int
        Longest body of a request and of an answer.
    timeout_s : float
        Time limit for a model's answer; for the first byte of a streamed one.
    stream_s : float
        Time limit for the whole of a streamed answer.
    account, region : str
        Account and region in error texts.
    """

    max_body_bytes: int = MAX_BODY_BYTES
    timeout_s: float = TIMEOUT_S
    stream_s: float = STREAM_S
    account: str = "123456789012"
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """A request, the caller's or its copy, on its way through a variant; the view is from its arrival."""

    live: LiveEndpoint
    view: EndpointView
    pool: VariantPool
    call: Call
    inference_id: str
    logbook: Logbook | None
    number: int
    arrival_s: float
    began: float
    event_id: str | None = None
    stream: StreamedReply | None = None


class Runtime:
    """SageMaker's runtime: answers invocations, mirrors, counts and captures them.

    Attributes
    ----------
    limits : Limits
    share_event_ids : bool
        Whether the captures of a request and of its copy share an event id.
    """

    def __init__(
        self,
        endpoints: LiveEndpoints,
        captures: InvocationCaptures,
        limits: Limits,
        random: Random,
        share_event_ids: bool = False,
    ):
        self.limits, self.share_event_ids = limits, share_event_ids
        self._endpoints, self._captures, self._random = endpoints, captures, random

    async def invoke(
        self,
        name: str,
        headers: Mapping[str, str],
        body: bytes,
        began: float,
        *,
        path: str = INVOCATIONS,
        completion: CompletionRequest | None = None,
        stream: StreamedReply | None = None,
    ) -> Reply | None:
        """Answer an invocation.

        Parameters
        ----------
        name : str
            Name of the endpoint.
        headers : mapping of str to str
            Headers of the request; a mapping that ignores case.
        body : bytes
        began : float
            Arrival of the request, by `perf_counter`.
        path : str
            Path at the container.
        completion : CompletionRequest, optional
            What the body asks for in the form of OpenAI's API.
        stream : StreamedReply, optional
            Gets the answer of a model in parts.

        Returns
        -------
        Reply or None
            None if the answer has been streamed.

        Raises
        ------
        ShadowsimError
            The request is refused before it reaches a model; the code is the runtime's.
        """
        live = self._endpoints.endpoint(name)
        arrival_s = time()
        check_headers(headers)
        if len(body) > self.limits.max_body_bytes:
            raise oversized(self.limits.max_body_bytes)
        pool = self._choose(name, live, headers.get(TARGET_VARIANT))
        passed = {key: headers[key] for key in _PASSED_ON if key in headers}
        if stream is not None and STREAM_ACCEPT in headers:
            passed["Accept"] = headers[STREAM_ACCEPT]
        call = Call(body, passed, path, completion)
        inference_id = headers.get(INFERENCE_ID, "")
        # An experiment counts its source's requests; a request keeps its experiment even if the endpoint changes.
        logbook = live.logbook if live.logbook is not None and pool.variant.name == live.logbook.variants[0] else None
        number = -1 if logbook is None else logbook.number()
        request = InFlight(
            live=live,
            view=live.view,
            pool=pool,
            call=call,
            inference_id=inference_id,
            logbook=logbook,
            number=number,
            arrival_s=arrival_s,
            began=began,
            event_id=str(uuid4()) if self.share_event_ids else None,
            stream=stream,
        )
        if stream is not None:
            stream.headers[INVOKED] = pool.variant.name
        copied = self._is_copied(request, headers.get(SESSION_ID) or inference_id)
        shadow = live.shadow if copied else None
        at_response = live.mirror.mirroring.instant == RESPONSE
        if shadow is not None and not at_response:
            self._start_copy(request, shadow, arrival_s)
        instance, answer = await pool.invoke(call, self.limits.timeout_s, stream)
        if shadow is not None and at_response:
            self._start_copy(request, shadow, time())
        if pool.overhead_s and (stream is None or stream.response is None):
            loop, left_s = asyncio.get_running_loop(), began + answer.latency_s + pool.overhead_s - perf_counter()
            await until(loop, loop.time() + left_s)
        live.announce()
        asyncio.get_running_loop().call_soon(self.record, request, instance, answer, perf_counter())
        if stream is not None and stream.response is not None:
            await self._end(stream, answer)
            return None
        return self._reply(name, pool.variant.name, answer)

    def _choose(self, name: str, live: LiveEndpoint, target: str | None) -> VariantPool:
        if not live.pools:  # its creation has not finished, or has failed
            raise InvocationError(f"Endpoint {shown(name)} of account {self.limits.account} not found.")
        if target is None:
            return pick_variant(live.pools, self._random.random())
        if target not in live.pools:
            raise InvocationError(f"Variant {target} is not a production variant of endpoint {shown(name)}.")
        return live.pools[target]

    def _is_copied(self, request: InFlight, session: str) -> bool:
        shadow = request.view.shadow
        if shadow is None or shadow.source_name != request.pool.variant.name:
            return False
        return request.live.mirror.chooses(shadow.sampling_percentage, session)

    def _start_copy(self, request: InFlight, pool: VariantPool, at_s: float) -> None:
        if request.live.mirror.spare_time.is_busy:  # before anything is made for a copy, since this is overload
            request.live.lose(request.logbook, pool.variant.name, at_s, SERVER_LAG)
            return
        copy = replace(request, pool=pool, arrival_s=at_s, began=perf_counter(), stream=None)
        self.send_copy(copy, None if request.stream is None else Unread(request.stream.within_s))

    def send_copy(self, copy: InFlight, receiver: Unread | None) -> None:
        """Send a copy to its pool, or count it as lost; `receiver` takes the parts of an answer that is streamed."""
        lost = partial(copy.live.lose, copy.logbook, copy.pool.variant.name, copy.arrival_s)
        copy.live.mirror.copy(copy.pool, copy.call, partial(self.record, copy), lost, receiver)

    def record(self, request: InFlight, instance: int, answer: Answer, ended: float) -> None:
        """Capture and count a request whose answer was ready for the caller at `ended` (by `perf_counter`)."""
        view, pool, call = request.view, request.pool, request.call
        name, captured = pool.variant.name, None
        if view.captures:
            invocation = Invocation(
                endpoint=view.name,
                variant=name,
                production=not pool.copies,
                call=call,
                answer=answer,
                inference_id=request.inference_id,
                event_id=request.event_id,
                arrival_s=request.arrival_s,
            )
            captured = self._captures.take(view.captures, invocation)
        served = ServedRequest(
            request=request.number,
            inference_id=request.inference_id,
            arrival_s=request.arrival_s,
            instance=instance,
            n_instances=len(pool.outstanding),
            answer=answer,
            overhead_s=max(ended - request.began - answer.latency_s, 0.0),
            first_part_s=_first_part_s(request, answer),
            request_bytes=len(call.body),
            captured_bytes=captured,
            is_copy=pool.copies,
        )
        request.live.record(request.logbook, name, served)

    async def _end(self, stream: StreamedReply, answer: Answer) -> None:
        if answer.is_left:
            return
        if answer.outcome == ANSWERED:
            await stream.end()
        elif answer.outcome == TIMED_OUT:
            text = f"The model did not end its answer within {stream.within_s:g} s."
            await stream.fail(MODEL_STREAM_ERROR, text, "ModelInvocationTimeExceeded")
        else:
            await stream.fail(MODEL_STREAM_ERROR, f"The model's stream ended early: {answer.failure}.", "StreamBroken")

    def _reply(self, endpoint: str, variant: str, answer: Answer) -> Reply:
        if answer.outcome != ANSWERED:
            return self._model_error(endpoint, answer)
        headers = {INVOKED: variant, **answer.headers}
        return Reply(200, answer.body, headers)

    def _model_error(self, endpoint: str, answer: Answer) -> Reply:
        limits, status = self.limits, answer.status
        failure = _TIMED_OUT if answer.outcome == TIMED_OUT else answer.failure
        text: str | None = answer.body.decode("utf-8", "replace") if status else failure
        if answer.outcome == TOO_LONG or len(answer.body) > _MOST_QUOTED:
            text, status = None, status or 500
        is_client = 400 <= status < 500
        group = f"/aws/sagemaker/Endpoints/{endpoint}"
        console = f"https://{limits.region}.console.aws.amazon.com/cloudwatch/home?region={limits.region}"
        received = f"Received {'client' if is_client else 'server'} error ({status}) from primary"
        quote = " and could not load the entire response body" if text is None else f' with message "{text}"'
        see = f"See {console}#logEventViewer:group={group} in account {limits.account} for more information."
        body = {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if is_client else "SERVER_ERROR_FROM_MODEL",
            "LogStreamArn": f"arn:aws:logs:{limits.region}:{limits.account}:log-group:{group}",
            "Message": f"{received}{quote}. {see}",
            "OriginalMessage": text or "",
            "OriginalStatusCode": status,
        }
        return Reply(424, json.dumps(body).encode(), {ERROR_TYPE: "ModelError", CONTENT_TYPE: "application/json"})


def _first_part_s(request: InFlight, answer: Answer) -> float:
    """Return the time until the caller had the first part; for a copy, whose parts nobody gets, until it came."""
    stream = request.stream
    if stream is None:
        return answer.first_part_s
    return math.nan if stream.first_part_s is None else stream.first_part_s - request.began


def oversized(max_body_bytes: int) -> InvocationError:
    """Return the error for a request with a body above the limit."""
    constraint = f"Member must have length less than or equal to {max_body_bytes}"
    return InvocationError(f"1 validation error detected: Value at 'body' failed to satisfy constraint: {constraint}")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse headers that violate SageMaker's constraints, or that ask for features outside of shadow tests.

    Raises
    ------
    InvocationError
        Lists every violation, in AWS's words.
    """
    violations = []
    for name, (member, most) in _LIMITS.items():
        value = headers.get(name)
        if value is None:
            continue
        if len(value) > most:
            violations.append(sentence(value, member, f"Member must have length less than or equal to {most}"))
        if not (value.isascii() and value.isprintable()):
            violations.append(sentence(value, member, "Member must have printable ASCII only"))
    if headers.get(INFERENCE_ID, "x") == "":
        violations.append(sentence("", "inferenceId", "Member must have length greater than or equal to 1"))
    if violations:
        raise InvocationError(str(ValidationError(violations)))
    for name, feature in _UNSUPPORTED.items():
        if name in headers:
            raise InvocationError(f"{name} is for {feature}, which shadow tests exclude.")


def error_reply(error: ShadowsimError, request_id: str | None = None) -> Reply:
    """Return the runtime's response for an error of its own, not of a model."""
    headers = {ERROR_TYPE: error.code, CONTENT_TYPE: "application/json", REQUEST_ID: request_id or str(uuid4())}
    text = None if isinstance(error, ThrottlingError) else str(error)  # as on AWS, without a message
    return Reply(error.http_status, json.dumps({"Message": text, "message": text}).encode(), headers)
