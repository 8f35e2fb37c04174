# %% Close everything, as code that makes daemons does, and open a file in its place
import os

os.closerange(3, 256)
file = open("own.txt", "w")
more = [open(f"own{n}.txt", "w") for n in range(4)]

# %% Go on
value = [1]
