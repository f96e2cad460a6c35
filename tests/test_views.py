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


_PRETENDED = (
    "import toolkit, sys, types\n"
    "from toolkit import serve\n"
    "from toolkit.server.server_handle import ServerHandle\n"
    "class Pretended(ServerHandle):\n"
    "    model_name = logs = metrics = is_running = engine = None\n"
    "    def stop(self, *, grace_s=None): pass\n"
    "    def __repr__(self): return 'plain'\n"
    "    def _repr_html_(self): return 'table'\n"
    "class Panel:\n"
    "    def __init__(self, server): pass\n"
    "    def _repr_mimebundle_(self, **options): return {'view': 1, 'text/html': 'x'}, {}\n"
    "room = types.ModuleType('toolkit.widgets')\n"
    "sys.modules['toolkit.widgets'] = room\n"
    "import IPython\n"
    "IPython.get_ipython = lambda: types.SimpleNamespace(kernel=kernel)\n"
    "server = Pretended()\n"
)


def test_a_server_shows_its_panel_in_a_notebook_and_its_own_table_elsewhere() -> None:
    run(
        _PRETENDED + "room.ServerPanel = Panel\nkernel = None\n"
        "assert server._repr_mimebundle_() == {}\n"
        "kernel = object()\n"
        "data, _ = server._repr_mimebundle_()\n"
        "assert data == {'view': 1, 'text/html': 'table', 'text/plain': 'plain'}\n"
        "assert server.panel() is server.panel()\n"
    )


def test_without_anywidget_a_server_shows_its_own_table_in_a_notebook_too() -> None:
    run(
        _PRETENDED + "kernel = object()\n"
        "sys.modules['toolkit.widgets'] = None\n"
        "assert server._repr_mimebundle_() == {}\n"
    )


def test_a_servers_dashboard_brings_a_load() -> None:
    run(
        _PRETENDED + "kernel = None\n"
        "room.Dashboard = lambda source, **options: options\n"
        "assert repr(server.dashboard()['load']).startswith('ClosedLoop')\n"
        "assert server.dashboard(load=None) == {'load': None}\n"
    )


def test_hanging_methods_loads_nothing() -> None:
    run(
        "import sys, toolkit\n"
        "toolkit.EngineConfig\n"
        "heavy = {'toolkit.server', 'toolkit.record', 'toolkit.widgets', 'pandas', 'torch'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
