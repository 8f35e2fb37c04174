# %% Before
import pathlib

pathlib.Path(__file__).unlink()


# %% Fail
def fail():
    raise ValueError("the file is gone")


fail()
