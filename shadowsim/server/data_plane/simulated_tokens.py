"""Serves calls by simulated language models, whose tokens come in real time.

The times are those of the continuous batcher. A token that is handed over late, because the event loop is, has its own
time all the same, and the delay counts as overhead. A streamed answer has one part for each token, in OpenAI's form
where the call has it. A caller who leaves, or whose time is out, lets the batcher drop the sequence if the service
aborts on a time-out; else it works on for nobody.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from shadowsim.option_defaults import MAX_BODY_BYTES
from shadowsim.scenario.service import Service
from shadowsim.scenario.token_times import Requests, work_s
from shadowsim.scenario.tokens import Tokens
from shadowsim.server.data_plane.backends import (
    ANSWERED,
    CONTENT_TYPE,
    ERROR_4XX,
    TIMED_OUT,
    Answer,
    Call,
    Receiver,
)
from shadowsim.server.data_plane.completions import MOST_TOKENS, TOKEN, Completion
from shadowsim.server.data_plane.continuous_batcher import ContinuousBatcher, TokenSequence
from shadowsim.server.data_plane.real_time import RealTime, set_done, until
from shadowsim.server.data_plane.simulated_answers import DRAWS_AT_ONCE, FULL, Outcomes, draws
from shadowsim.server.data_plane.streamed_bodies import KeptParts, TokenFigures
from shadowsim.server.http.streamed_replies import CallerGoneError


class InTokens:
    """Instances with a continuous batcher."""

    def __init__(self, service: Service, tokens: Tokens, n_instances: int, seed: int, overhead_s: float):
        self.n_workers, self.overhead_s = 1, overhead_s  # the whole instance works on a step
        self._tokens, self._queue_limit = tokens, service.queue_limit
        self._batchers: dict[int, ContinuousBatcher] = {}
        self._instances: dict[int, RealTime[TokenSequence]] = {}
        for instance in range(n_instances):
            self.add_instance(instance)
        self._outcomes = Outcomes(service, seed)
        self._requests = _token_draws(tokens, np.random.default_rng(seed))

    async def invoke(self, instance: int, call: Call, timeout_s: float, receiver: Receiver | None = None) -> Answer:
        """Have a drawn prompt prefilled and a drawn number of tokens produced, or as many as the call asks for."""
        prompt, drawn, group, offered_s = next(self._requests)
        output = drawn if call.completion is None else call.completion.length(drawn)
        if output != drawn:
            offered_s = _offered_s(self._tokens, np.array([[prompt], [output]], float))[0]
        arrival, draw = asyncio.get_running_loop().time(), self._outcomes.draw()
        if not self._tokens.fits(prompt, output):
            text = f"{prompt} tokens of the prompt and {output} of the answer do not fit into the cache or a step"
            return Answer(ERROR_4XX, 0.0, 400, text.encode())
        sequence = TokenSequence(arrival, prompt, output, group)
        if receiver is None or self._outcomes.is_error(draw):  # an error has its status in the head
            return await self._whole(sequence, instance, call, timeout_s, draw, offered_s)
        sequence.give_up_s = arrival + receiver.within_s
        return await self._stream(sequence, instance, call, timeout_s, receiver, offered_s)

    async def _whole(
        self, sequence: TokenSequence, instance: int, call: Call, timeout_s: float, draw: float, offered_s: float
    ) -> Answer:
        loop, arrival = asyncio.get_running_loop(), sequence.arrival_s
        sequence.give_up_s = arrival + timeout_s
        if not await self._instances[instance].serve(sequence, arrival, sequence.give_up_s):
            return FULL
        end = sequence.last_s + self._tokens.after_s  # NaN while the last token has not come
        await until(loop, min(end, sequence.give_up_s) if end == end else sequence.give_up_s)
        timely = end - arrival <= timeout_s
        answer = self._answer(sequence, end - arrival if timely else timeout_s, timely, offered_s)
        return self._outcomes.answer(call, draw, answer) if timely else answer

    async def _stream(
        self,
        sequence: TokenSequence,
        instance: int,
        call: Call,
        timeout_s: float,
        receiver: Receiver,
        offered_s: float,
    ) -> Answer:
        """Hand each token over when the model has it; the first within `timeout_s`."""
        machine, arrival, after_s = self._instances[instance], sequence.arrival_s, self._tokens.after_s
        told = TokenTimes()
        sequence.told = told.add
        if not machine.enter(sequence, arrival):
            return FULL
        loop, texts, kept = asyncio.get_running_loop(), TokenTexts(call, sequence), KeptParts(MAX_BODY_BYTES)
        n, limit_s, is_left = 0, timeout_s, False
        try:
            while n < sequence.output:
                token_s = await told.next(arrival + limit_s, machine.advance)
                if not token_s + after_s - arrival <= limit_s:  # it is NaN if none came
                    break
                await until(loop, token_s + after_s + self.overhead_s)
                if not n:
                    limit_s = receiver.within_s
                    await receiver.begin(texts.headers)
                n += 1
                part = texts.token()
                kept.add(part)
                await receiver.part(part)
            if n == sequence.output and (part := texts.end()):
                kept.add(part)
                await receiver.part(part)
        except CallerGoneError:
            is_left = True
        finally:
            if n < sequence.output:
                machine.advance(loop.time())
                self._batchers[instance].leave(sequence)
                machine.advance(loop.time())
        timely = n == sequence.output
        latency_s = sequence.last_s + after_s - arrival if timely else loop.time() - arrival if is_left else limit_s
        answer = self._answer(sequence, latency_s, timely or is_left, offered_s)
        if not n:
            return answer
        return replace(
            answer,
            status=200,
            body=kept.joined(),
            cut_bytes=kept.cut_bytes,
            headers=texts.headers,
            first_part_s=sequence.first_s + after_s - arrival,
            is_left=is_left,
        )

    def _answer(self, sequence: TokenSequence, latency_s: float, timely: bool, offered_s: float) -> Answer:
        return Answer(
            outcome=ANSWERED if timely else TIMED_OUT,
            latency_s=latency_s,
            wait_s=sequence.start_s - sequence.arrival_s,
            service_s=sequence.last_s + self._tokens.after_s - sequence.start_s,
            work_s=sequence.work_s,
            offered_s=offered_s,
            tokens=self._figures(sequence, latency_s),
        )

    def _figures(self, sequence: TokenSequence, latency_s: float) -> TokenFigures:
        first_token_s = sequence.first_s + self._tokens.after_s - sequence.arrival_s
        timely = sequence.last_s + self._tokens.after_s - sequence.arrival_s <= latency_s
        more = sequence.output - 1
        return TokenFigures(
            first_token_s=first_token_s if first_token_s <= latency_s else math.nan,
            per_token_s=(sequence.last_s - sequence.first_s) / more if timely and more else math.nan,
            prompt=sequence.prompt,
            output=sequence.output,
            produced=sequence.produced,
            prefilled=sequence.prefilled,
            preemptions=sequence.preemptions,
        )

    def batches(self) -> Sequence[tuple[int, float]]:
        """Return running sequences and cache use of each instance, now."""
        now = asyncio.get_running_loop().time()
        for instance in self._instances.values():
            instance.advance(now)
        return [(batcher.n_running, batcher.cache_use) for batcher in self._batchers.values()]

    def add_instance(self, instance: int) -> None:
        """Make a further instance, with an empty cache."""
        batcher = self._batchers[instance] = ContinuousBatcher(self._tokens, self._queue_limit)
        self._instances[instance] = RealTime[TokenSequence](batcher)

    def remove_instance(self, instance: int) -> None:
        """Forget an instance."""
        del self._batchers[instance], self._instances[instance]


class TokenTimes:
    """The times of a sequence's tokens, from the batcher to whoever hands them over."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def add(self, time_s: float) -> None:
        """Note that a token has come."""
        self._times.append(time_s)
        if self._waiter is not None:
            set_done(self._waiter)

    async def next(self, give_up_s: float, advance: Callable[[float], None]) -> float:
        """Return the time of the next token; NaN if it has not come by a moment of the loop's clock.

        Parameters
        ----------
        give_up_s : float
        advance : callable
            Tells the instance a moment, since this timer may fire before the instance's own.
        """
        loop = asyncio.get_running_loop()
        if self._times:
            await asyncio.sleep(0)  # after a delay there are many, and others have work, too
        else:
            self._waiter = loop.create_future()
            timer = loop.call_at(give_up_s, set_done, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
            if not self._times:
                advance(loop.time())
        return self._times.popleft() if self._times else math.nan


class TokenTexts:
    """The parts of a streamed answer, by token."""

    def __init__(self, call: Call, sequence: TokenSequence):
        self._sequence, self._completion = sequence, None
        self._is_cut = False
        self.headers = {CONTENT_TYPE: "text/plain"}
        if call.completion is not None:
            self._completion = Completion(call.completion)
            self._is_cut = sequence.output == call.completion.max_tokens
            self.headers = {CONTENT_TYPE: self._completion.content_type}

    def token(self) -> bytes:
        """Return the part of a token."""
        return TOKEN.encode() if self._completion is None else self._completion.event(TOKEN)

    def end(self) -> bytes:
        """Return what follows the last token."""
        if self._completion is None:
            return b""
        return self._completion.last(self._sequence.prompt, self._sequence.output, self._is_cut)


def _token_draws(tokens: Tokens, random: np.random.Generator) -> Iterator[tuple[int, int, int, float]]:
    """Yield without end tokens of a prompt and an answer, the prompt's group, and seconds in a full batch."""
    laws = draws(tokens.prompt, random), draws(tokens.output, random)
    groups = 1 if tokens.prefix is None else tokens.prefix.groups or 1
    while True:
        drawn = ([next(law) for law in laws] for _ in range(DRAWS_AT_ONCE))
        prompt, output = np.clip(np.floor(np.array(list(drawn)).T + 0.5), 1.0, MOST_TOKENS)
        offered_s = _offered_s(tokens, np.array((prompt, output)))
        group = random.integers(groups, size=DRAWS_AT_ONCE)
        columns = (column.tolist() for column in (prompt.astype(np.int64), output.astype(np.int64), group))
        yield from zip(*columns, offered_s, strict=True)


def _offered_s(tokens: Tokens, lengths: np.ndarray) -> list[float]:
    """Return the seconds in a full batch of requests, by their tokens of prompt and answer: shape (2, n)."""
    prompt, output = lengths
    seconds: list[float] = work_s(tokens, Requests(prompt, output, np.zeros_like(prompt)), {}).tolist()
    return seconds
