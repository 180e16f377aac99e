"""Implements one queue in other simulators: M/M/8 at load 0.8, first come, first served, empty at the start.

`python peers.py FORM CUSTOMERS SEED` prints the seconds that building the model, running it and computing the mean wait
took, and the mean wait. A small run precedes, so that the time excludes imports and compilation. Each run has its own
process: cimba cannot compile a model after anything else has used numba.

This module does not import annotations from `__future__`, since cimba reads those of its model at class creation.
"""

import functools
import heapq
import math
import random
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

SERVERS = 8
RATE = 6.4  # arrivals per mean service time


def simpy_process(n: int, seed: int) -> float:
    """SimPy as in its guide: one process per customer, which requests a Resource."""
    import simpy

    draw = random.Random(seed).expovariate
    env = simpy.Environment()
    servers = simpy.Resource(env, SERVERS)
    waited = 0.0

    def customer() -> Iterator[Any]:
        nonlocal waited
        arrived = env.now
        with servers.request() as turn:
            yield turn
            waited += env.now - arrived
            yield env.timeout(draw(1.0))

    def arrivals() -> Iterator[Any]:
        for _ in range(n):
            yield env.timeout(draw(RATE))
            env.process(customer())

    env.process(arrivals())
    env.run()
    return waited / n


def simpy_store(n: int, seed: int) -> float:
    """SimPy's fastest form: one process per server, which takes arrival times from a Store."""
    import simpy

    draw = random.Random(seed).expovariate
    env = simpy.Environment()
    line = simpy.Store(env)
    waited = 0.0

    def server() -> Iterator[Any]:
        nonlocal waited
        while True:
            arrived = yield line.get()
            waited += env.now - arrived
            yield env.timeout(draw(1.0))

    def arrivals() -> Iterator[Any]:
        for _ in range(n):
            yield env.timeout(draw(RATE))
            line.put(env.now)

    for _ in range(SERVERS):
        env.process(server())
    env.process(arrivals())
    env.run()
    return waited / n


def ciw_network(n: int, seed: int) -> float:
    """Ciw: a network of one node, run until n customers have left, and their records."""
    import ciw

    ciw.seed(seed)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=RATE)],
        service_distributions=[ciw.dists.Exponential(rate=1.0)],
        number_of_servers=[SERVERS],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(n)
    return statistics.fmean(record.waiting_time for record in simulation.get_all_records())


def salabim_component(n: int, seed: int) -> float:
    """Salabim: one component per customer in a Queue, whose monitor measures the wait, and clerks."""
    import salabim

    draw = random.Random(seed).expovariate
    env = salabim.Environment(yieldless=False, random_seed=seed)
    idle: list[Any] = []

    class Customer(salabim.Component):
        pass

    class Arrivals(salabim.Component):
        def process(self) -> Iterator[Any]:
            for _ in range(n):
                yield self.hold(draw(RATE))
                Customer().enter(line)
                if idle:
                    idle.pop().activate()

    class Clerk(salabim.Component):
        def process(self) -> Iterator[Any]:
            while True:
                while len(line) == 0:
                    idle.append(self)
                    yield self.passivate()
                line.pop()
                yield self.hold(draw(1.0))

    line = salabim.Queue("line")
    for _ in range(SERVERS):
        Clerk()
    Arrivals()
    env.run()
    return float(line.length_of_stay.mean())


def salabim_deque(n: int, seed: int) -> float:
    """Salabim's fastest form: only clerks are components, arrival times wait in a deque, and monitors are off."""
    import salabim

    draw = random.Random(seed).expovariate
    env = salabim.Environment(yieldless=False, random_seed=seed)
    line: deque[float] = deque()
    idle: list[Any] = []
    waited = 0.0

    class Arrivals(salabim.Component):
        def process(self) -> Iterator[Any]:
            for _ in range(n):
                yield self.hold(draw(RATE))
                line.append(env.now())
                if idle:
                    idle.pop().activate()

    class Clerk(salabim.Component):
        def process(self) -> Iterator[Any]:
            nonlocal waited
            while True:
                while not line:
                    idle.append(self)
                    yield self.passivate()
                waited += env.now() - line.popleft()
                yield self.hold(draw(1.0))

    for component in [Arrivals(), *(Clerk() for _ in range(SERVERS))]:
        component.status.monitor(False)
        component.mode.monitor(False)
    env.run()
    return waited / n


@functools.cache
def cimba_model() -> Any:
    """Return the class of cimba's model, created only once because each class is compiled."""
    import cimba
    from cimba.inputs import dist

    class Line(cimba.Model):
        customers: cimba.Param[int] = 1
        gap: cimba.Input[float] = dist.exponential(mean=1.0 / RATE)
        service: cimba.Input[float] = dist.exponential(mean=1.0)
        line: cimba.Store[float]
        waited: float = 0.0
        mean_wait: cimba.Output[float]

        @cimba.process
        def arrivals(self) -> None:
            for _ in range(self.customers):
                cimba.hold(self.gap.next())
                self.line.put(cimba.now())

        @cimba.process(copies=SERVERS)
        def server(self) -> None:
            while True:
                arrived = self.line.get()
                self.waited += cimba.now() - arrived
                cimba.hold(self.service.next())

        @cimba.on_end
        def measure(self) -> None:
            self.mean_wait = self.waited / self.customers

    return Line


def cimba_store(n: int, seed: int) -> float:
    """Cimba's fastest form: one process per server and a Store, compiled, on one thread."""
    import cimba

    model = cimba_model()()
    model.customers = n
    results = cimba.Experiment(model, seed=seed).run(workers=1)
    assert not results.failed.any(), results.failure_reasons
    return float(results[model].mean_wait[0, 0])


def heapq_loop(n: int, seed: int) -> float:
    """Plain Python: a heap of the times at which servers become free (Kiefer and Wolfowitz, 1955)."""
    uniform, log, replace = random.Random(seed).random, math.log, heapq.heapreplace
    free = [0.0] * SERVERS
    now = waited = 0.0
    for _ in range(n):
        now -= log(1.0 - uniform()) / RATE
        begin = free[0]
        if begin > now:
            waited += begin - now
        else:
            begin = now
        replace(free, begin - log(1.0 - uniform()))
    return waited / n


FORMS = {
    form.__name__: form
    for form in (
        simpy_process,
        simpy_store,
        ciw_network,
        salabim_component,
        salabim_deque,
        cimba_store,
        heapq_loop,
    )
}

if __name__ == "__main__":
    run, customers, seed = FORMS[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3])
    run(1_000, seed)
    began = time.perf_counter()
    wait = run(customers, seed)
    print(time.perf_counter() - began, wait)
