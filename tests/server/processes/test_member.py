"""What a worker and the mirror do beside their work."""

import asyncio
from types import SimpleNamespace

from shadowsim.server.data_plane.loop_clock import LoopClock
from shadowsim.server.processes import member
from shadowsim.server.processes.member import WORKER, Member, ProcessStart
from shadowsim.server.processes.shared_memory import SharedMemory, make_block
from shadowsim.server.settings import Settings
from shadowsim.server.state.destinations import Folders
from shadowsim.server.state.quotas import Quotas


def test_a_member_forgets_deleted_endpoints_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(member, "FORGET_S", 0.0)
    start = ProcessStart(
        **{"role": WORKER, "name": "worker-0", "row": 1, "generation": 1, "folder": tmp_path, "store": {}},
        **{"settings": Settings(sink=Folders(tmp_path)), "quotas": Quotas({}), "n_workers": 1, "url": ""},
        **{"token": None, "log_format": "text"},
    )

    async def run():
        n_asked, enough = 0, asyncio.Event()

        async def forget_deleted():
            nonlocal n_asked
            n_asked += 1
            if n_asked == 3:
                enough.set()

        joined = Member(start, SharedMemory(make_block()), LoopClock())
        joined.serve(SimpleNamespace(forget_deleted=forget_deleted, by_name={}))
        async with asyncio.timeout(30.0):
            await enough.wait()
            await joined.leave(0.0)

    asyncio.run(run())
