# %% Bytes that are not text, and a character cut in two
import os

os.write(1, b"bad \xff\xfe byte, cut \xe2\x82")
os.write(1, b"\xac whole")
