from __future__ import annotations


def test_a_widget_in_lab(lab):
    notebook = lab(["1+1", """
import sys; sys.path.insert(0, '/tmp/wt/wbase')
from tests.builders import make_engine, params
from toolkit.record import Record
from toolkit.widgets import BlockMap
engine = make_engine(num_blocks=120, block_size=4, max_num_seqs=6, recorder=Record())
for i in range(6): engine.add(list(range(1 + i, 20 + 3*i)), params(max_tokens=30))
for _ in range(6): engine.step()
import threading, time
m = BlockMap(engine)
log = []
old = m._on_custom
t0 = time.time()
m.on_msg(lambda w, c, b: log.append((round(time.time()-t0,2), c['type'], threading.current_thread().name)))
m""", """
import time
t=time.time()
while time.time()-t<3:
    engine.step()
    time.sleep(.1)
print("end", time.time()-t0)
"""])
    notebook.run_all(wait=False)
    import time
    for i in range(5):
        notebook.page.wait_for_timeout(700)
        print(time.time(), notebook.output()[:300])
    notebook.page.screenshot(path="/tmp/wbase_lab.png")
    notebook.use_theme("JupyterLab Dark")
    notebook.page.screenshot(path="/tmp/wbase_lab_dark.png")
    notebook.page.wait_for_timeout(3000)
    notebook.run("log.clear(); t0=time.time()")
    notebook.run("for i in range(4): engine.add(list(range(1 + i, 20 + 3*i)), params(max_tokens=40))\nwhile time.time()-t0<4: engine.step(); time.sleep(.1)", wait=False)
    for i in range(6):
        notebook.page.wait_for_timeout(500)
        print(time.time(), notebook.output()[:70])
    notebook.page.wait_for_timeout(2500)
    notebook.run("print(log[:10], len(log), m._frames.num_views, engine)")
    print(notebook.output())
