"""An event loop whose clock stands still while code runs, and jumps to the next timer instead of waiting for it."""

import asyncio
import selectors


class _NoWait(selectors.DefaultSelector):
    def __init__(self):
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout=None):
        self.now_s += timeout or 0.0
        return super().select(0)


def run(coroutine):
    """Run a coroutine that waits for nothing but timers; its loop's time begins at 0."""
    selector = _NoWait()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(coroutine)
