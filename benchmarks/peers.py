"""Other simulators on one queue: M/M/8 at a load of 0.8, first come, first served, empty at first.

`python peers.py FORM CUSTOMERS SEED` prints the seconds that building the model, running it and having the mean wait
took, and that mean wait. A small run goes before, so that imports and compilation are not in the time. Each run has a
process of its own: cimba cannot compile a model once anything else has used numba.

No annotations from the future here: cimba reads those of its model when the class is made.
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
RATE = 6.4  # arrivals in a mean service time


def simpy_process(n: int, seed: int) -> float:
    """SimPy as its guide has it: a process a customer, which requests a Resource."""
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
    """SimPy's fastest form: a process a server, which takes arrival times from a Store."""
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
    """Ciw: a network of one node, run until n customers are through, and their records."""
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
    """Salabim with a component a customer in a Queue, whose monitor measures the wait; clerks activated by name."""
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
    """Salabim's fastest form: clerks alone are components, arrival times wait in a deque, and nothing is monitored."""
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
    """Make the class of cimba's model, once, since each class is compiled anew."""
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
    """Cimba's fastest form: a process a server and a Store, compiled, on one thread."""
    import cimba

    model = cimba_model()()
    model.customers = n
    results = cimba.Experiment(model, seed=seed).run(workers=1)
    assert not results.failed.any(), results.failure_reasons
    return float(results[model].mean_wait[0, 0])


def heapq_loop(n: int, seed: int) -> float:
    """Plain Python: the times at which servers get free, in a heap (Kiefer and Wolfowitz, 1955)."""
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
