"""Runs real servers whose latency the model has to predict, each in one process.

`python real_servers.py sleep WORKERS MEAN_S SCV SEED [FACTOR]` answers after a lognormal sleep, at most WORKERS
requests at once; the others wait in line. `python real_servers.py forest TREES SEED [FACTOR]` answers with the
predictions of a scikit-learn forest, one request after the other, for a drawn number of rows each. SEED decides what is
drawn: a server that starts again with the same one has the same services. FACTOR makes every service so many times as
long. The first line on standard output is the address, on 127.0.0.1.
"""

import asyncio
import math
import sys
from time import perf_counter

import numpy as np
from aiohttp import web


def sleeper(workers, mean_s, scv, seed, factor=1.0):
    """A handler that sleeps; the semaphore wakes waiting requests first in, first out."""
    random, places = np.random.default_rng(seed), asyncio.Semaphore(workers)
    sigma = math.sqrt(math.log1p(scv))

    async def answer(request):
        await request.read()
        async with places:
            await asyncio.sleep(factor * random.lognormal(math.log(mean_s) - sigma * sigma / 2.0, sigma))
        return web.Response(body=b"{}")

    return answer


def forest(trees, seed, factor=1.0):
    """A handler that predicts: it holds the process, so that there is one worker."""
    from sklearn.ensemble import RandomForestRegressor

    random = np.random.default_rng(0)  # the model is always the same
    x = random.normal(size=(2000, 20))
    model = RandomForestRegressor(trees, max_depth=10, random_state=0, n_jobs=1).fit(
        x, x[:, 0] + random.normal(size=2000)
    )
    random = np.random.default_rng(seed)

    async def answer(request):
        await request.read()
        rows = 1 + int(random.exponential(200.0))
        began = perf_counter()
        predicted = model.predict(random.normal(size=(rows, 20)))
        until = began + factor * (perf_counter() - began)
        while perf_counter() < until:
            pass
        return web.Response(body=repr(float(predicted[0])).encode())

    return answer


async def serve(handler):
    """Serve until standard input ends."""
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


async def main(kind, *numbers):
    """Serve one of the handlers."""
    if kind == "sleep":
        workers, mean_s, scv, seed, *factor = numbers
        handler = sleeper(int(workers), float(mean_s), float(scv), int(seed), *map(float, factor))
    else:
        trees, seed, *factor = numbers
        handler = forest(int(trees), int(seed), *map(float, factor))
    await serve(handler)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
