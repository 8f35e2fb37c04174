# %% Write without end and without a line end
import os

size = int(os.environ["FLOOD_BYTES"])
block = b"x" * (1 << 20)
os.write(1, b"the beginning|")
written = 0
while written < size:
    written += os.write(1, block)
os.write(1, b"|the end")
