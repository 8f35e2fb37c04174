# %% A child that outlives us and holds our streams
import subprocess

sleeper = subprocess.Popen(["sleep", "600"])
print("started", sleeper.pid)
