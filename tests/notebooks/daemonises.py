# %% A daemon: forked twice, in a session of its own, deaf to the polite signals
import os
import signal
import sys
import time

sys.stdout.flush()
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.write(writer, str(os.getpid()).encode())
        os.execvp("sleep", ["sleep", "600"])
    os._exit(0)
os.wait()
os.close(writer)
daemon = int(os.read(reader, 32))
print("daemon", daemon)
if os.environ.get("THEN") == "sleep":
    time.sleep(600)
