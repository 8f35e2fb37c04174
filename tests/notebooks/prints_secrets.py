# %% Say what should not be said, whole and in pieces
import os
import sys
import time

secret = os.environ["THE_SECRET"]
print("whole", secret)
for letter in secret:
    os.write(1, letter.encode())
    time.sleep(0.001)
os.write(2, b"stderr " + secret.encode() + b"\n")

# %% And in an error
raise RuntimeError(f"cannot log in with {secret}")
