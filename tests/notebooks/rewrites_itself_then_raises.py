# %% Before
import pathlib

pathlib.Path(__file__).write_text("# %%\nsomething = 'else'\n" * 30)


# %% Fail
def fail():
    raise ValueError("the file is another")


fail()
