"""What a user types on a lower object reaches the room above it."""

from __future__ import annotations

import subprocess
import sys


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_record_can_draw_itself_once_toolkit_hands_it_out() -> None:
    run(
        "import toolkit, sys, types\n"
        "Record = toolkit.Record\n"
        "room = types.ModuleType('toolkit.widgets')\n"
        "room.Timeline = lambda source, **options: ('timeline', source, options)\n"
        "room.BlockMap = lambda source, **options: ('map', source, options)\n"
        "sys.modules['toolkit.widgets'] = room\n"
        "record = Record()\n"
        "assert record.timeline(sort='ttft_s') == ('timeline', record, {'sort': 'ttft_s'})\n"
        "assert record.block_map() == ('map', record, {})\n"
    )


def test_a_server_has_a_dashboard_once_serve_is_known() -> None:
    run(
        "from toolkit import serve\n"
        "from toolkit.server.handle import Server\n"
        "from toolkit.server.process import ServerProcess\n"
        "assert callable(Server.dashboard) and callable(ServerProcess.dashboard)\n"
    )


def test_hanging_methods_loads_nothing() -> None:
    run(
        "import sys, toolkit\n"
        "toolkit.EngineConfig\n"
        "heavy = {'toolkit.server', 'toolkit.record', 'toolkit.widgets', 'pandas', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
