"""Runs real servers whose latency the model has to predict, each in one process.

`python real_servers.py sleep WORKERS MEAN_S SCV [FACTOR [SEED]]` answers after a lognormal sleep, at most WORKERS
requests at once; the others wait in line. `python real_servers.py svr POINTS [FACTOR [SEED]]` answers with the
predictions of scikit-learn's support vectors, for a drawn number of rows each, in a worker process of gunicorn. FACTOR
makes every service so many times as long. A server that starts again with the same SEED draws the same services. The
first line on standard output is the address, on 127.0.0.1.
"""

import asyncio
import math
import os
import signal
import socket
import sys
from threading import Thread
from time import perf_counter

import numpy as np
from aiohttp import web

DEFAULTS = FACTOR, SEED = 1.0, 7
ROWS = 600.0  # of a request, on average: 9 ms or so


def sleeper(workers, mean_s, scv, factor=FACTOR, seed=SEED):
    """A handler that sleeps; the semaphore wakes waiting requests first in, first out."""
    random, places = np.random.default_rng(seed), asyncio.Semaphore(workers)
    sigma = math.sqrt(math.log1p(scv))

    async def answer(request):
        await request.read()
        async with places:
            await asyncio.sleep(factor * random.lognormal(math.log(mean_s) - sigma * sigma / 2.0, sigma))
        return web.Response(body=b"{}")

    return answer


def regression(points, factor=FACTOR, seed=SEED):
    """A WSGI application that predicts by support vectors.

    It computes in a core's own cache. A forest of trees is bound by memory instead: on a shared machine it takes up to
    twice as long after some milliseconds of idleness, as much as others have emptied the caches meanwhile.
    """
    from sklearn.svm import SVR

    random = np.random.default_rng(SEED)  # the model is always the same
    x = random.normal(size=(points, 20))
    model = SVR().fit(x, x[:, 0] + random.normal(size=points))
    random = np.random.default_rng(seed)

    def application(environ, start_response):
        environ["wsgi.input"].read()
        rows = 1 + int(random.exponential(ROWS))
        began = perf_counter()
        predicted = model.predict(random.normal(size=(rows, 20)))
        until = began + factor * (perf_counter() - began)
        while perf_counter() < until:
            pass
        body = repr(float(predicted[0])).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return application


def serve_wsgi(make_application):
    """Serve with one worker process of gunicorn, which takes one connection after the other, until input ends."""
    from gunicorn.app.base import BaseApplication

    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    port = listener.getsockname()[1]
    descriptor = listener.detach()  # gunicorn closes it when it has its own

    def end_with_input(arbiter):
        Thread(target=lambda: (sys.stdin.read(), os.kill(arbiter.pid, signal.SIGTERM)), daemon=True).start()

    def tell(worker):
        print(f"http://127.0.0.1:{port}/invocations", flush=True)

    class Served(BaseApplication):
        def load_config(self):
            self.cfg.set("bind", f"fd://{descriptor}")
            self.cfg.set("backlog", 4096)
            self.cfg.set("loglevel", "warning")
            self.cfg.set("when_ready", end_with_input)
            self.cfg.set("post_worker_init", tell)

        def load(self):
            return make_application()

    Served().run()


async def serve(handler):
    """Serve with aiohttp until standard input ends."""
    app = web.Application(client_max_size=2**26)
    app.router.add_post("/invocations", handler)
    app.router.add_get("/ping", lambda _: asyncio.sleep(0, web.Response()))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/invocations", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def main(kind, *numbers):
    """Serve one of the servers."""
    if kind == "sleep":
        workers, mean_s, scv, factor, seed, *_ = (*numbers, *DEFAULTS[len(numbers) - 3 :])
        asyncio.run(serve(sleeper(int(workers), float(mean_s), float(scv), float(factor), int(seed))))
    else:
        points, factor, seed, *_ = (*numbers, *DEFAULTS[len(numbers) - 1 :])
        serve_wsgi(lambda: regression(int(points), float(factor), int(seed)))


if __name__ == "__main__":
    main(*sys.argv[1:])
