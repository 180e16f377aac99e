"""Forms what simulated instances answer: errors by chance, echoes, and completions in OpenAI's form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import numpy as np

from shadowsim.scenario.laws import Law
from shadowsim.scenario.service import Service
from shadowsim.server.data_plane.backends import (
    ANSWERED,
    CONTENT_TYPE,
    ERROR_4XX,
    ERROR_5XX,
    REFUSED,
    Answer,
    Call,
    Receiver,
)
from shadowsim.server.data_plane.completions import TOKEN, Completion
from shadowsim.server.http.streamed_replies import CallerGoneError

FULL = Answer(REFUSED, 0.0, 503, b"the queue is full")
DRAWS_AT_ONCE = 256  # some laws take a microsecond per draw, during which the event loop stands still
_MOST_TEXT = 100_000  # tokens whose text an answer in one piece holds


class Outcomes:
    """Answers of simulated instances, some of which are errors."""

    def __init__(self, service: Service, seed: int):
        self._service, self._coin = service, Random(seed)

    def draw(self) -> float:
        """Return the draw that makes a call an error."""
        return self._coin.random()

    def is_error(self, draw: float) -> bool:
        """Return whether a draw makes an error."""
        return draw < self._service.error_4xx + self._service.error_5xx

    def answer(self, call: Call, draw: float, answer: Answer) -> Answer:
        """Return a timely answer with its status and body."""
        if draw < self._service.error_4xx:
            return replace(answer, outcome=ERROR_4XX, status=400, body=b"a simulated error")
        if self.is_error(draw):
            return replace(answer, outcome=ERROR_5XX, status=500, body=b"a simulated error")
        if call.completion is not None:
            completion, tokens = Completion(call.completion), answer.tokens
            if tokens is None:
                body = completion.whole(TOKEN, 0, 0)
            else:
                text = TOKEN * min(tokens.output, _MOST_TEXT)
                body = completion.whole(text, tokens.prompt, tokens.output, tokens.output == call.completion.max_tokens)
            return replace(answer, status=200, body=body, headers={CONTENT_TYPE: completion.content_type})
        headers = {CONTENT_TYPE: call.headers[CONTENT_TYPE]} if CONTENT_TYPE in call.headers else {}
        return replace(answer, status=200, body=call.body, headers=headers)


async def handed_over(answer: Answer, receiver: Receiver | None) -> Answer:
    """Return an answer, after its receiver, if there is one, has had it in one part."""
    if receiver is None or answer.outcome != ANSWERED:
        return answer
    try:
        await receiver.begin(answer.headers)
        if answer.body:
            await receiver.part(answer.body)
    except CallerGoneError:
        return replace(answer, is_left=True)
    return replace(answer, first_part_s=answer.latency_s)


def draws(law: Law, random: np.random.Generator) -> Iterator[float]:
    """Yield draws of a law without end, by inversion from both tails."""
    while True:
        v = 0.5 - 0.5 * random.random(DRAWS_AT_ONCE)  # in (0, 0.5]
        lower, upper = law.tails(v)
        yield from np.where(random.random(DRAWS_AT_ONCE) < 0.5, lower, upper).tolist()
